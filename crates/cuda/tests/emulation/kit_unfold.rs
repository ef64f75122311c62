//! Convolution and the fully connected layer: the kernels around the products, emulated, and the steps they
//! come in, against float64.

use crate::support::case::Random;
use crate::support::emulator::{Emulator, SCHEDULES, emulator};
use crate::support::layer_case::{Layer, LayerCase, conv, fully_connected};
use spikenorm_core::DType;
use spikenorm_core::kit::{Conv2dSpec, Window};
use spikenorm_cuda::kit::Step;

const DTYPES: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];
const PLENTY: usize = 1 << 20;

fn check(emulator: &Emulator, case: &LayerCase, schedules: u32) -> Vec<Step> {
    case.check(emulator, schedules).unwrap_or_else(|why| panic!("{why}\n{case:?}"))
}

fn launches(steps: &[Step], kernel: &str) -> usize {
    let of = |step: &&Step| matches!(step, Step::Launch(launch) if launch.kernel.starts_with(kernel));
    steps.iter().filter(of).count()
}

fn products(steps: &[Step]) -> usize {
    steps.iter().filter(|step| matches!(step, Step::Product(_))).count()
}

/// Odd kernels, strides that leave out pixels, windows larger than the image, planes of one value.
fn layers() -> Vec<Layer> {
    let uneven = Window { kernel: [2, 3], stride: [3, 1], padding: [0, 2] };
    vec![
        conv(3, [2, 5], [7, 6], [3, 1, 1]),
        conv(2, [3, 4], [9, 8], [3, 2, 1]),
        conv(5, [1, 3], [4, 5], [5, 1, 2]),
        conv(2, [2, 2], [11, 7], [2, 3, 0]),
        conv(4, [6, 3], [5, 4], [1, 1, 0]),
        conv(1, [4, 7], [6, 6], [1, 1, 0]),
        conv(3, [5, 2], [6, 5], [1, 2, 0]),
        conv(40, [2, 33], [1, 1], [1, 1, 0]),
        conv(2, [2, 3], [3, 3], [3, 1, 3]),
        conv(2, [1, 2], [40, 33], [3, 1, 1]),
        Layer::Conv2d {
            samples: 3,
            image: [6, 4],
            spec: Conv2dSpec { in_channels: 3, out_channels: 2, window: uneven },
        },
        fully_connected(1, 1, 1),
        fully_connected(31, 17, 10),
        fully_connected(7, 64, 130),
        fully_connected(300, 9, 5),
    ]
}

#[test]
fn layers_match_their_definition_in_every_dtype_shape_and_cut() {
    let Some(emulator) = emulator() else { return };
    let mut random = Random::new(7);
    for (number, layer) in layers().into_iter().enumerate() {
        for dtype in DTYPES {
            for (index, budget) in [PLENTY, 4000, 0].into_iter().enumerate() {
                let case = LayerCase {
                    layer: layer.clone(),
                    dtype,
                    bias: (number + index) % 3 != 1,
                    offset: dtype.size() * random.below(4),
                    budget,
                };
                check(emulator, &case, 1);
            }
        }
    }
}

#[test]
fn layers_give_the_same_bits_under_every_schedule() {
    let Some(emulator) = emulator() else { return };
    for (number, layer) in layers().into_iter().enumerate() {
        let dtype = DTYPES[number % 4];
        let case = LayerCase { layer, dtype, bias: true, offset: dtype.size(), budget: 6000 };
        check(emulator, &case, SCHEDULES);
    }
}

/// Tensors of the dtype of the parameters are matrices where they are, if a chunk is one sample.
#[test]
fn a_pass_takes_only_the_steps_it_needs() {
    let Some(emulator) = emulator() else { return };
    let case = |layer, dtype, bias, budget| LayerCase { layer, dtype, bias, offset: 0, budget };
    let pointwise = conv(1, [4, 3], [5, 5], [1, 1, 0]);
    let steps = check(emulator, &case(pointwise.clone(), DType::F32, false, PLENTY), 1);
    assert_eq!((steps.len(), products(&steps)), (3, 3), "{steps:?}");
    let steps = check(emulator, &case(pointwise, DType::F16, false, PLENTY), 1);
    assert_eq!((launches(&steps, "gather"), launches(&steps, "scatter")), (3, 2), "{steps:?}");
    assert_eq!(launches(&steps, "unfold"), 0, "{steps:?}");

    let layer = conv(6, [4, 3], [5, 5], [3, 1, 1]);
    let whole = check(emulator, &case(layer.clone(), DType::F32, true, PLENTY), 1);
    assert_eq!((launches(&whole, "unfold"), launches(&whole, "fold"), products(&whole)), (2, 1, 3));
    // Two samples at a time, then one sample at a time, two channels at a time.
    let halves = check(emulator, &case(layer.clone(), DType::F32, true, 2 * 25 * 4 * (4 * 9 + 3)), 1);
    assert_eq!((launches(&halves, "unfold"), launches(&halves, "fold"), products(&halves)), (6, 3, 9));
    let channels = check(emulator, &case(layer, DType::F32, true, 25 * 4 * 2 * 9), 1);
    assert_eq!((launches(&channels, "unfold"), launches(&channels, "fold")), (24, 12));

    let steps = check(emulator, &case(fully_connected(8, 6, 5), DType::F64, false, 0), 1);
    assert_eq!((steps.len(), products(&steps)), (3, 3), "{steps:?}");
    let steps = check(emulator, &case(fully_connected(8, 6, 5), DType::BF16, true, 4 * 11 * 3), 1);
    assert_eq!((launches(&steps, "gather"), products(&steps)), (3 + 2 * 3, 9), "{steps:?}");
}

/// Sums over many values are cut into groups, whose ends must meet.
#[test]
fn biases_sum_every_value_of_a_channel_once() {
    let Some(emulator) = emulator() else { return };
    let shapes = [(3, 1, [91, 90]), (700, 3, [2, 3]), (5000, 2, [1, 1]), (1, 70, [9, 1])];
    for (samples, channels, image) in shapes {
        for dtype in DTYPES {
            let layer = conv(samples, [1, channels], image, [1, 1, 0]);
            let case = LayerCase { layer, dtype, bias: true, offset: 0, budget: PLENTY };
            let steps = check(emulator, &case, 2);
            assert_eq!(launches(&steps, "sum_channels"), 1);
        }
    }
    let case = LayerCase {
        layer: fully_connected(3000, 2, 37),
        dtype: DType::F32,
        bias: true,
        offset: 4,
        budget: PLENTY,
    };
    check(emulator, &case, 2);
}
