//! Losses and sums for JavaScript.

use napi_derive::napi;
use spikenorm_core::kit::LogitsGrid;
use spikenorm_core::{Backend, bail};
use spikenorm_cpu::Cpu;

use crate::error::{Result, face};
use crate::handles::{insert_tensor, tensor};

/// A loss and the handle of its gradient.
#[napi(object)]
pub struct LossAndGrad {
    pub loss: f64,
    pub grad: u32,
}

/// Cross entropy of logits `[N, K]` or `[T, N, K]` (decoded by the mean over T) against labels `[N]`.
#[napi]
pub fn cross_entropy(logits: u32, labels: u32) -> Result<LossAndGrad> {
    face(|| {
        let (logits, labels) = (tensor(logits)?, tensor(labels)?);
        if !logits.dtype.is_float() {
            bail!(
                Dtype,
                "logits: expected float64, float32, float16 or bfloat16, got {}",
                logits.dtype.name()
            );
        }
        LogitsGrid::check_labels(labels.dtype)?;
        let grid = LogitsGrid::of(&logits.shape, &labels.shape)?;
        let output = Cpu.cross_entropy(grid, &logits, &labels)?;
        Ok(LossAndGrad { loss: output.loss, grad: insert_tensor(output.grad) })
    })
}

/// A new tensor `a + b`.
#[napi]
pub fn tensor_add(a: u32, b: u32) -> Result<u32> {
    face(|| {
        let (a, b) = (tensor(a)?, tensor(b)?);
        b.expect_shape("sum", &a.shape)?;
        b.expect_dtype("sum", a.dtype)?;
        if !a.dtype.is_float() {
            bail!(Dtype, "sum: expected a floating-point tensor, got {}", a.dtype.name());
        }
        Ok(insert_tensor(Cpu.add(&a, &b)?))
    })
}
