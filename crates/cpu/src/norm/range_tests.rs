//! The ends of the range: infinities, numbers whose squares leave float32, and tensors without values.

use spikenorm_core::norm::{Layout, NormForward, NormSpec, Rows, Statistics};
use spikenorm_core::{Backend, DType, Grid};

use crate::backend::{Cpu, CpuTensor};
use crate::tensor_ops::{read_f64, write_f64};

const ALL: [DType; 4] = [DType::F64, DType::F32, DType::F16, DType::BF16];

fn spec(channels: usize, eps: f64) -> NormSpec {
    NormSpec {
        spatial: 1,
        channels,
        layout: Layout::Contiguous,
        steps: None,
        statistics: Rows::Shared,
        weight: Rows::Shared,
        bias: Rows::Shared,
        time_scale: false,
        eps,
    }
}

fn tensor(values: &[f64], shape: &[usize], dtype: DType) -> CpuTensor {
    let tensor = Cpu.allocate(shape, dtype).expect("allocates");
    write_f64(&tensor, values).expect("writes");
    tensor
}

/// y, dx and dweight of one channel, in training with running statistics absent, or with those given.
fn run(
    grid: Grid,
    dtype: DType,
    eps: f64,
    x: &[f64],
    dy: &[f64],
    running: Option<[f64; 2]>,
) -> [Vec<f64>; 3] {
    let spec = spec(grid.c, eps);
    let shape = [grid.t, grid.n, grid.c, grid.s];
    let small = |value: f64| tensor(&vec![value; grid.c], &[1, grid.c], dtype.parameter());
    let (weight, bias) = (small(1.0), small(0.0));
    let [mean, var] = running.unwrap_or([0.0, 1.0]).map(small);
    let (x, dy) = (tensor(x, &shape, dtype), tensor(dy, &shape, dtype));
    let statistics = match running {
        Some(_) => Statistics::Running { mean: &mean, var: &var },
        None => Statistics::Batch(None),
    };
    let call = NormForward {
        spec: &spec,
        grid,
        x: &x,
        weight: Some(&weight),
        bias: Some(&bias),
        scale: None,
        statistics,
        record: true,
    };
    let output = Cpu.norm_forward(&call).expect("runs");
    let grads = Cpu.norm_backward(&output.saved.expect("recorded"), &dy).expect("runs");
    let values = |tensor: &CpuTensor| read_f64(tensor).expect("reads");
    [values(&output.y), values(&grads.dx), values(&grads.weight.expect("given"))]
}

/// Every kernel: the single-step loop, slabs, channels last and long rows.
fn grids() -> [Grid; 5] {
    let grid = |t, n, s| Grid { t, n, c: 1, s };
    [grid(1, 4, 8), grid(2, 4, 3), grid(1, 40, 1), grid(2, 3, 100), grid(1, 2, 5000)]
}

fn pattern(grid: Grid, size: f64) -> Vec<f64> {
    (0..grid.len()).map(|i| size * ([1.0, 2.0, -1.0, 3.0, -2.5][i % 5])).collect()
}

#[test]
fn dx_under_running_statistics_does_not_depend_on_the_input() {
    for dtype in ALL {
        for grid in grids() {
            let mut x = pattern(grid, 1.0);
            (x[1], x[2], x[5]) = (f64::INFINITY, f64::NAN, f64::NEG_INFINITY);
            let dy = vec![1.0; grid.len()];
            let [_, dx, dweight] = run(grid, dtype, 0.25, &x, &dy, Some([0.5, 3.75]));
            assert_eq!(dx, vec![0.5; grid.len()], "{dtype:?} {grid:?}");
            assert!(dweight[0].is_nan());
        }
    }
}

/// The naive formulas in float64.
fn reference(x: &[f64], dy: &[f64], eps: f64) -> [Vec<f64>; 3] {
    let count = x.len() as f64;
    let mean = x.iter().sum::<f64>() / count;
    let var = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    let rstd = 1.0 / (var + eps).sqrt();
    let y: Vec<f64> = x.iter().map(|x| (x - mean) * rstd).collect();
    let k1 = dy.iter().sum::<f64>() / count;
    let s2: f64 = dy.iter().zip(&y).map(|(dy, y)| dy * y).sum();
    let dx = dy.iter().zip(&y).map(|(dy, y)| rstd * (dy - k1 - y * s2 / count)).collect();
    [y, dx, vec![s2]]
}

#[test]
fn values_whose_squares_leave_float32_have_the_gradients_of_their_scale() {
    for dtype in [DType::F32, DType::BF16] {
        for grid in grids() {
            for (size, eps) in [(1e-20, 1e-45), (1e-18, 1e-300), (1e20, 1e-5), (1e30, 1e-5), (1e36, 1e-5)] {
                let x = read_f64(&tensor(&pattern(grid, size), &[grid.len()], dtype)).expect("reads");
                let dy: Vec<f64> = (0..grid.len()).map(|i| [1.0, -1.0, 2.0, 0.5][i % 4]).collect();
                let got = run(grid, dtype, eps, &x, &dy, None);
                let expected = reference(&x, &dy, eps);
                for (what, (got, expected)) in ["y", "dx", "dweight"].iter().zip(got.iter().zip(&expected)) {
                    // dweight may cancel to nothing.
                    let floor = if *what == "dweight" { 1.0f64 } else { 0.0 };
                    let largest = expected.iter().fold(floor, |m, v| m.max(v.abs()));
                    let tolerance =
                        if dtype == DType::F32 || *what == "dweight" { 1e-6 } else { 1.0 / 128.0 };
                    for (got, expected) in got.iter().zip(expected) {
                        let error = (got - expected).abs() / largest;
                        assert!(
                            error <= tolerance,
                            "{what} {dtype:?} {grid:?} {size:e}: {expected:e}, got {got:e}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn an_empty_batch_returns_at_once_whatever_its_steps_and_places() {
    for dtype in ALL {
        for [t, n, s] in [[1 << 40, 0, 1], [1 << 31, 0, 9], [1 << 40, 3, 0], [0, 5, 7]] {
            let [y, dx, dweight] = run(Grid { t, n, c: 3, s }, dtype, 1e-5, &[], &[], Some([0.0, 1.0]));
            assert_eq!([y.len(), dx.len()], [0, 0]);
            assert_eq!(dweight, [0.0; 3]);
        }
    }
}
