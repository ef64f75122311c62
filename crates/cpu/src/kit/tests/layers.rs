//! Convolution and the fully connected layer.

use spikenorm_core::kit::{Conv2dForward, Conv2dSpec, Frames, LinearForward, LinearSpec, Window};
use spikenorm_core::{Backend, DType, StepMode};

use super::{FLOATS, expect_close, expect_gradient, noisy, tensor, tolerance, values};
use crate::{Cpu, CpuTensor, set_num_threads};

struct Case {
    spec: Conv2dSpec,
    shape: [usize; 4],
}

fn case(
    shape: [usize; 4],
    out_channels: usize,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
) -> Case {
    let window = Window { kernel, stride, padding };
    Case { spec: Conv2dSpec { in_channels: shape[1], out_channels, window }, shape }
}

fn cases() -> Vec<Case> {
    vec![
        case([3, 2, 5, 7], 4, [3, 3], [1, 1], [1, 1]),
        case([2, 3, 6, 9], 5, [3, 2], [2, 3], [1, 0]),
        case([19, 2, 8, 8], 3, [3, 3], [1, 1], [1, 1]),
        case([2, 4, 3, 16], 2, [1, 1], [1, 1], [0, 0]),
        // More padding than window, in height and in width.
        case([2, 1, 4, 4], 2, [3, 3], [1, 1], [3, 2]),
        case([2, 2, 4, 5], 3, [2, 1], [1, 1], [0, 1]),
        // Many more outputs than inputs.
        case([3, 1, 6, 5], 4, [3, 3], [1, 1], [1, 1]),
        // Many rows of one image: tiles within a sample.
        case([1, 2, 40, 33], 3, [5, 3], [1, 1], [2, 1]),
        case([2, 3, 37, 50], 2, [4, 3], [3, 2], [0, 1]),
        // More outputs than values under the window, in rows of 20.
        case([2, 1, 3, 20], 3, [1, 1], [1, 1], [0, 0]),
        // More outputs than are written together, of both ways to the gradients; more weights than are added together.
        case([2, 3, 5, 6], 11, [3, 3], [2, 2], [1, 1]),
        case([2, 24, 3, 4], 20, [3, 3], [1, 1], [1, 1]),
    ]
}

/// Calls `visit(y index, w index, x index)` for every product of the convolution.
fn products(spec: &Conv2dSpec, frames: Frames, mut visit: impl FnMut(usize, usize, usize)) {
    let Window { kernel, stride, padding } = spec.window;
    let ([height, width], [rows, cols]) = (frames.input, frames.output);
    for n in 0..frames.samples {
        for o in 0..spec.out_channels {
            for (p, q) in (0..rows).flat_map(|p| (0..cols).map(move |q| (p, q))) {
                for c in 0..spec.in_channels {
                    for (i, j) in (0..kernel[0]).flat_map(|i| (0..kernel[1]).map(move |j| (i, j))) {
                        let (y, x) = (p * stride[0] + i, q * stride[1] + j);
                        if y < padding[0]
                            || x < padding[1]
                            || y - padding[0] >= height
                            || x - padding[1] >= width
                        {
                            continue;
                        }
                        visit(
                            ((n * spec.out_channels + o) * rows + p) * cols + q,
                            ((o * spec.in_channels + c) * kernel[0] + i) * kernel[1] + j,
                            ((n * spec.in_channels + c) * height + y - padding[0]) * width + x - padding[1],
                        );
                    }
                }
            }
        }
    }
}

struct Run {
    x: CpuTensor,
    weight: CpuTensor,
    bias: CpuTensor,
    dy: CpuTensor,
    /// y, dx, dweight, dbias.
    results: [Vec<f64>; 4],
}

fn run(case: &Case, dtype: DType) -> Run {
    let frames = case.spec.frames(&case.shape, StepMode::Single).expect("fits");
    let parameter = dtype.parameter();
    let x = noisy(1, &case.shape, dtype);
    let weight = noisy(2, &case.spec.weight_shape(), parameter);
    let bias = noisy(3, &[case.spec.out_channels], parameter);
    let call =
        Conv2dForward { spec: &case.spec, frames, x: &x, weight: &weight, bias: Some(&bias), record: true };
    let output = Cpu.conv2d_forward(&call).expect("runs");
    let saved = output.saved.expect("recorded");
    // An optimiser may step before backward.
    Cpu.fill(&weight, f64::NAN).expect("fills");
    let dy = noisy(4, &output.y.shape, dtype);
    let grads = Cpu.conv2d_backward(&saved, &dy, true).expect("runs");
    let without_dx = Cpu.conv2d_backward(&saved, &dy, false).expect("runs");
    assert!(without_dx.dx.is_none());
    assert_eq!(values(&without_dx.weight), values(&grads.weight));
    let results = [
        &output.y,
        grads.dx.as_ref().expect("asked for"),
        &grads.weight,
        grads.bias.as_ref().expect("has one"),
    ]
    .map(values);
    Run { x, weight: noisy(2, &case.spec.weight_shape(), parameter), bias, dy, results }
}

#[test]
fn convolution_and_its_gradients_equal_the_naive_sums_in_every_dtype() {
    for case in cases() {
        let frames = case.spec.frames(&case.shape, StepMode::Single).expect("fits");
        for dtype in FLOATS {
            let run = run(&case, dtype);
            let [x, w, b, dy] = [&run.x, &run.weight, &run.bias, &run.dy].map(values);
            let plane = frames.output_plane();
            let mut want = [
                (0..dy.len()).map(|at| b[at / plane % case.spec.out_channels]).collect(),
                vec![0.0; x.len()],
                vec![0.0; w.len()],
                vec![0.0; b.len()],
            ];
            products(&case.spec, frames, |at_y, at_w, at_x| {
                want[0][at_y] += w[at_w] * x[at_x];
                want[1][at_x] += w[at_w] * dy[at_y];
                want[2][at_w] += x[at_x] * dy[at_y];
            });
            dy.iter().enumerate().for_each(|(at, dy)| want[3][at / plane % case.spec.out_channels] += dy);
            for (i, (name, want)) in ["y", "dx", "dweight", "dbias"].into_iter().zip(&want).enumerate() {
                let tolerance = tolerance(if i < 2 { dtype } else { dtype.parameter() });
                expect_close(
                    &format!("{name} of {:?} in {}", case.spec, dtype.name()),
                    &run.results[i],
                    want,
                    tolerance,
                );
            }
        }
    }
}

#[test]
fn convolution_gives_the_same_bits_with_any_number_of_threads() {
    let case = case([70, 8, 12, 12], 16, [3, 3], [1, 1], [1, 1]);
    let results: Vec<_> = [1, 2, 5]
        .into_iter()
        .map(|threads| {
            set_num_threads(threads).expect("starts");
            run(&case, DType::F32).results
        })
        .collect();
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0], results[2]);
}

#[test]
fn an_empty_batch_convolves_to_an_empty_output_and_zero_gradients() {
    let empty = case([0, 2, 5, 7], 4, [3, 3], [1, 1], [1, 1]);
    let [y, dx, weight, bias] = run(&empty, DType::F32).results;
    assert!(y.is_empty() && dx.is_empty());
    assert!(weight.iter().chain(&bias).all(|&value| value == 0.0));
}

#[test]
fn convolution_backward_is_the_derivative_of_forward() {
    let case = case([2, 2, 4, 5], 3, [3, 2], [2, 1], [1, 1]);
    let frames = case.spec.frames(&case.shape, StepMode::Single).expect("fits");
    let run = run(&case, DType::F64);
    let [x, w, b, dy] = [&run.x, &run.weight, &run.bias, &run.dy].map(values);
    let forward = |x: &[f64], w: &[f64], b: &[f64]| {
        let x = tensor(x, &case.shape, DType::F64);
        let weight = tensor(w, &case.spec.weight_shape(), DType::F64);
        let bias = tensor(b, &[b.len()], DType::F64);
        let call = Conv2dForward {
            spec: &case.spec,
            frames,
            x: &x,
            weight: &weight,
            bias: Some(&bias),
            record: false,
        };
        values(&Cpu.conv2d_forward(&call).expect("runs").y)
    };
    expect_gradient("dx", &x, &run.results[1], &dy, |x| forward(x, &w, &b));
    expect_gradient("dweight", &w, &run.results[2], &dy, |w| forward(&x, w, &b));
    expect_gradient("dbias", &b, &run.results[3], &dy, |b| forward(&x, &w, b));
}

#[test]
fn linear_and_its_gradients_equal_the_naive_sums_in_every_dtype() {
    for (rows, inputs, outputs) in [(1, 1, 1), (7, 5, 3), (131, 40, 10), (64, 9, 130), (0, 4, 3)] {
        let spec = LinearSpec { in_features: inputs, out_features: outputs };
        for dtype in FLOATS {
            let x = noisy(1, &[rows, inputs], dtype);
            let weight = noisy(2, &spec.weight_shape(), dtype.parameter());
            let bias = noisy(3, &[outputs], dtype.parameter());
            let dy = noisy(4, &[rows, outputs], dtype);
            let call =
                LinearForward { spec: &spec, rows, x: &x, weight: &weight, bias: Some(&bias), record: true };
            let output = Cpu.linear_forward(&call).expect("runs");
            let grads =
                Cpu.linear_backward(output.saved.as_ref().expect("recorded"), &dy, true).expect("runs");
            let got = [
                values(&output.y),
                values(grads.dx.as_ref().expect("asked for")),
                values(&grads.weight),
                values(grads.bias.as_ref().expect("has one")),
            ];
            let [x, w, b, dy] = [&x, &weight, &bias, &dy].map(values);
            let mut want = [
                (0..rows * outputs).map(|at| b[at % outputs]).collect(),
                vec![0.0; rows * inputs],
                vec![0.0; outputs * inputs],
                vec![0.0; outputs],
            ];
            for (row, o) in (0..rows).flat_map(|row| (0..outputs).map(move |o| (row, o))) {
                let dy = dy[row * outputs + o];
                want[3][o] += dy;
                for i in 0..inputs {
                    want[0][row * outputs + o] += x[row * inputs + i] * w[o * inputs + i];
                    want[1][row * inputs + i] += dy * w[o * inputs + i];
                    want[2][o * inputs + i] += dy * x[row * inputs + i];
                }
            }
            for (i, name) in ["y", "dx", "dweight", "dbias"].into_iter().enumerate() {
                let tolerance = tolerance(if i < 2 { dtype } else { dtype.parameter() });
                expect_close(
                    &format!("{name} of {spec:?} in {}", dtype.name()),
                    &got[i],
                    &want[i],
                    tolerance,
                );
            }
        }
    }
}

#[test]
fn layers_refuse_shapes_that_do_not_fit_and_say_what_was_expected() {
    let conv = case([1, 3, 5, 5], 4, [3, 3], [1, 1], [0, 0]).spec;
    for (shape, mode, message) in [
        (&[1, 2, 5, 5][..], StepMode::Single, "expected inChannels = 3 channels at axis 1, got 2"),
        (
            &[1, 3, 5, 5][..],
            StepMode::Multi,
            "expected [T, N, C, H, W] in step mode 'm', got shape [1, 3, 5, 5]",
        ),
        (&[1, 3, 2, 5][..], StepMode::Single, "smaller than the kernel, 3 by 3"),
    ] {
        let error = conv.frames(shape, mode).expect_err("refused");
        assert!(error.message.contains(message), "{error}");
    }
    let linear = LinearSpec { in_features: 4, out_features: 2 };
    let error = linear.rows(&[3, 5]).expect_err("refused");
    assert!(error.message.contains("inFeatures = 4"), "{error}");
    assert!(linear.rows(&[4]).is_err());
}
