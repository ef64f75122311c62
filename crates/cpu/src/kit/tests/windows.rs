//! Pooling.

use spikenorm_core::kit::{AvgPoolSaved, PoolSpec, Window};
use spikenorm_core::{Backend, StepMode};

use super::{FLOATS, expect_close, noisy, tensor, tolerance, values};
use crate::Cpu;

fn specs() -> Vec<PoolSpec> {
    [([2, 2], [2, 2], [0, 0]), ([3, 2], [1, 2], [1, 1]), ([3, 3], [2, 2], [1, 0]), ([17, 16], [3, 1], [8, 8])]
        .map(|(kernel, stride, padding)| PoolSpec { window: Window { kernel, stride, padding } })
        .to_vec()
}

const SHAPE: [usize; 5] = [2, 3, 2, 9, 8];

/// Image indices that the window at (p, q) covers, within a plane, row by row.
fn covered(spec: &PoolSpec, [height, width]: [usize; 2], p: usize, q: usize) -> Vec<usize> {
    let Window { kernel, stride, padding } = spec.window;
    let mut all = Vec::new();
    for i in 0..kernel[0] {
        for j in 0..kernel[1] {
            let (y, x) =
                ((p * stride[0] + i).wrapping_sub(padding[0]), (q * stride[1] + j).wrapping_sub(padding[1]));
            if y < height && x < width {
                all.push(y * width + x);
            }
        }
    }
    all
}

#[test]
fn pooling_and_its_gradients_equal_the_naive_loops_in_every_dtype() {
    for (spec, dtype) in specs().into_iter().flat_map(|spec| FLOATS.map(|dtype| (spec.clone(), dtype))) {
        let frames = spec.frames(&SHAPE, StepMode::Multi).expect("fits");
        let x = noisy(1, &SHAPE, dtype);
        let average = Cpu.avg_pool2d_forward(&spec, frames, &x).expect("runs");
        let maximum = Cpu.max_pool2d_forward(&spec, frames, &x, true).expect("runs");
        let dy = noisy(2, &average.shape, dtype);
        let saved = AvgPoolSaved { spec: spec.clone(), frames, input_shape: SHAPE.to_vec(), dtype };
        let average_dx = Cpu.avg_pool2d_backward(&saved, &dy).expect("runs");
        let maximum_dx =
            Cpu.max_pool2d_backward(maximum.saved.as_ref().expect("recorded"), &dy).expect("runs");

        let (x, dy) = (values(&x), values(&dy));
        let area = (spec.window.kernel[0] * spec.window.kernel[1]) as f64;
        let mut want = [vec![0.0; dy.len()], vec![0.0; dy.len()], vec![0.0; x.len()], vec![0.0; x.len()]];
        for (at, dy) in dy.iter().enumerate() {
            let plane = at / frames.output_plane() * frames.input_plane();
            let (p, q) = (at / frames.output[1] % frames.output[0], at % frames.output[1]);
            let mut best = None;
            for index in covered(&spec, frames.input, p, q) {
                want[0][at] += x[plane + index] / area;
                want[2][plane + index] += dy / area;
                if best.is_none_or(|best: usize| x[plane + index] > x[best]) {
                    best = Some(plane + index);
                }
            }
            let best = best.expect("covers something");
            want[1][at] = x[best];
            want[3][best] += dy;
        }
        let what = |name: &str| format!("{name} of {spec:?} in {}", dtype.name());
        expect_close(&what("average"), &values(&average), &want[0], tolerance(dtype));
        assert_eq!(values(&maximum.y), want[1], "{}", what("maximum"));
        expect_close(&what("dx of average"), &values(&average_dx), &want[2], tolerance(dtype));
        expect_close(&what("dx of maximum"), &values(&maximum_dx), &want[3], tolerance(dtype));
    }
}

#[test]
fn the_maximum_takes_the_first_of_equal_values_and_nan_wins() {
    let spec = PoolSpec { window: Window { kernel: [2, 2], stride: [2, 2], padding: [0, 0] } };
    let x = [1.0, 1.0, 5.0, f64::NAN, 1.0, 1.0, 7.0, 2.0];
    let dtype = spikenorm_core::DType::F32;
    let shape = [1, 1, 2, 4];
    let frames = spec.frames(&shape, StepMode::Single).expect("fits");
    let output = Cpu.max_pool2d_forward(&spec, frames, &tensor(&x, &shape, dtype), true).expect("runs");
    let y = values(&output.y);
    assert!(y[0] == 1.0 && y[1].is_nan());
    let dy = tensor(&[3.0, 4.0], &[1, 1, 1, 2], dtype);
    let dx = Cpu.max_pool2d_backward(output.saved.as_ref().expect("recorded"), &dy).expect("runs");
    assert_eq!(values(&dx), [3.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0]);
}

#[test]
fn a_window_that_could_lie_in_the_padding_alone_is_refused() {
    let spec = PoolSpec { window: Window { kernel: [2, 3], stride: [1, 1], padding: [1, 2] } };
    assert!(spec.check().expect_err("refused").message.contains("at most half of kernelSize [2, 3]"));
}
