//! Losses and sums for JavaScript.

use napi_derive::napi;
use spikenorm_core::kit::LogitsGrid;
use spikenorm_core::{Backend, bail};

use crate::device::{Place, on_device};
use crate::error::{Checked, Result, face};
use crate::handles::{Handle, Made, device_of, insert_tensor, tensor};

/// Cross entropy of logits `[N, K]` or `[T, N, K]` (decoded by the mean over T) against labels `[N]`. Makes a
/// report and the gradient: the report holds the loss, or which label is wrong, and is read by `loss_report`.
#[napi]
pub fn cross_entropy(logits: f64, labels: f64) -> Result<f64> {
    face(|| on_device!(device_of(logits)?, backend => cross_entropy_on(backend, logits, labels)))
}

fn cross_entropy_on<B: Place>(backend: &B, logits: Handle, labels: Handle) -> Checked<f64> {
    let (logits, labels) = (tensor(backend, "logits", logits)?, tensor(backend, "labels", labels)?);
    if !logits.dtype.is_float() {
        bail!(Dtype, "logits: expected float64, float32, float16 or bfloat16, got {}", logits.dtype.name());
    }
    LogitsGrid::check_labels(labels.dtype)?;
    let grid = LogitsGrid::of(&logits.shape, &labels.shape)?;
    let mut made = Made::new()?;
    let output = backend.cross_entropy(grid, &logits, &labels)?;
    made.tensor(0, backend, output.report);
    made.tensor(1, backend, output.grad);
    Ok(made.number())
}

/// The loss in a report, and how many samples are classified as labelled. Waits for the device; throws where a
/// label was no class.
#[napi]
pub fn loss_report(report: f64) -> Result<Vec<f64>> {
    face(|| {
        on_device!(device_of(report)?, backend => {
            let report = tensor(backend, "report", report)?;
            let values = backend.read(&report, bytemuck::pod_collect_to_vec::<u8, f64>)?;
            match *values {
                [loss, sample, correct] if sample < 0.0 => Ok(vec![loss, correct]),
                [_, sample, _] => bail!(Argument, "labels: the label of sample {sample} is no class of the logits"),
                _ => bail!(Argument, "report: expected that of a cross entropy"),
            }
        })
    })
}

/// A new tensor `a + b`.
#[napi]
pub fn tensor_add(a: f64, b: f64) -> Result<f64> {
    face(|| {
        on_device!(device_of(a)?, backend => {
            let (a, b) = (tensor(backend, "sum", a)?, tensor(backend, "sum", b)?);
            b.expect_shape("sum", &a.shape)?;
            b.expect_dtype("sum", a.dtype)?;
            if !a.dtype.is_float() {
                bail!(Dtype, "sum: expected a floating-point tensor, got {}", a.dtype.name());
            }
            Ok(insert_tensor(backend, backend.add(&a, &b)?))
        })
    })
}
