//! Every operation against a naive float64 reference, in every dtype, and its backward against finite
//! differences of its forward.

mod layers;
mod loss_and_optimizers;
mod neurons;
mod windows;

use spikenorm_core::{Backend, DType};

use crate::tensor_ops::{read_f64, write_f64};
use crate::{Cpu, CpuTensor};

const FLOATS: [DType; 4] = [DType::F64, DType::F32, DType::F16, DType::BF16];

/// Largest error, relative to the largest reference value. Sums have at most a few thousand terms; half
/// types are rounded once, from float32.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-13,
        DType::F32 => 1e-6,
        DType::F16 => 2f64.powi(-11) + 1e-6,
        _ => 2f64.powi(-8) + 1e-6,
    }
}

/// Central differences of step 1e-5 are off by rounding, about 1e-16/1e-5, times the size of the sum.
const DIFFERENCE_TOLERANCE: f64 = 1e-7;

/// Pseudo-random values in ±1, no two alike.
fn noise(seed: u64, len: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn tensor(values: &[f64], shape: &[usize], dtype: DType) -> CpuTensor {
    let tensor = Cpu.empty(shape, dtype).expect("allocates");
    write_f64(&tensor, values).expect("writes");
    tensor
}

fn noisy(seed: u64, shape: &[usize], dtype: DType) -> CpuTensor {
    tensor(&noise(seed, shape.iter().product()), shape, dtype)
}

fn values(tensor: &CpuTensor) -> Vec<f64> {
    read_f64(tensor).expect("reads")
}

fn expect_close(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}: size");
    let scale = want.iter().fold(0.0f64, |largest, value| largest.max(value.abs())).max(1e-300);
    let worst = got.iter().zip(want).map(|(got, want)| (got - want).abs() / scale).enumerate();
    let (at, error) =
        worst.fold(
            (0, 0.0),
            |worst, (at, error)| {
                if error > worst.1 || error.is_nan() { (at, error) } else { worst }
            },
        );
    if error > tolerance || error.is_nan() {
        panic!("{what}: at {at} got {}, expected {}, off by {error:e} of {scale:e}", got[at], want[at]);
    }
}

/// Checks `grad`, the claimed gradient of Σ f(x)·weights at `x`, by central differences.
fn expect_gradient(what: &str, x: &[f64], grad: &[f64], weights: &[f64], f: impl Fn(&[f64]) -> Vec<f64>) {
    let objective = |x: &[f64]| -> f64 { f(x).iter().zip(weights).map(|(y, w)| y * w).sum() };
    let differences: Vec<f64> = (0..x.len())
        .map(|at| {
            let moved = |by: f64| {
                let mut x = x.to_vec();
                x[at] += by;
                objective(&x)
            };
            (moved(1e-5) - moved(-1e-5)) / 2e-5
        })
        .collect();
    expect_close(what, grad, &differences, DIFFERENCE_TOLERANCE);
}
