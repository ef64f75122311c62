//! The fully connected layer for JavaScript.

use napi_derive::napi;
use spikenorm_core::kit::{LinearForward, LinearSaved, LinearSpec};

use crate::device::{Place, on_device};
use crate::error::{Checked, Result, face};
use crate::handles::{Handle, Made, device_of, get, insert, optional_tensor, tensor};
use crate::tensor::{expect_gradient, expect_parameter_dtype};

/// Checks and registers a specification.
#[napi]
pub fn linear_spec(in_features: u32, out_features: u32) -> Result<f64> {
    face(|| {
        let spec = LinearSpec { in_features: in_features as usize, out_features: out_features as usize };
        spec.check()?;
        Ok(insert(spec))
    })
}

/// Forward; `bias` 0 for none. Makes y and, with `record`, saved.
#[napi]
pub fn linear_forward(spec: f64, x: f64, weight: f64, bias: f64, record: bool) -> Result<f64> {
    face(|| on_device!(device_of(x)?, backend => forward(backend, spec, x, [weight, bias], record)))
}

fn forward<B: Place>(
    backend: &B,
    spec: Handle,
    x: Handle,
    [weight, bias]: [Handle; 2],
    record: bool,
) -> Checked<f64> {
    let spec = get(spec, |spec: &LinearSpec| Ok(spec.clone()))?;
    let (x, weight) = (tensor(backend, "input", x)?, tensor(backend, "weight", weight)?);
    let bias = optional_tensor(backend, "bias", bias)?;
    let rows = spec.rows(&x.shape)?;
    expect_parameter_dtype("weight", &weight, x.dtype)?;
    let call = LinearForward { spec: &spec, rows, x: &x, weight: &weight, bias: bias.as_ref(), record };
    let mut made = Made::new()?;
    let output = backend.linear_forward(&call)?;
    made.tensor(0, backend, output.y);
    made.saved(1, backend, output.saved);
    Ok(made.number())
}

/// Backward of a saved forward. Makes dx, dweight and dbias, where they are.
#[napi]
pub fn linear_backward(saved: f64, dy: f64) -> Result<f64> {
    face(|| on_device!(device_of(saved)?, backend => backward(backend, saved, dy)))
}

fn backward<B: Place>(backend: &B, saved: Handle, dy: Handle) -> Checked<f64> {
    let dy = tensor(backend, "dy", dy)?;
    let mut made = Made::new()?;
    let grads = get(saved, |saved: &LinearSaved<B::Memory>| {
        expect_gradient(&dy, &saved.spec.output_shape(&saved.x.shape), saved.x.dtype)?;
        backend.linear_backward(saved, &dy, true)
    })?;
    made.optional_tensor(0, backend, grads.dx);
    made.tensor(1, backend, grads.weight);
    made.optional_tensor(2, backend, grads.bias);
    Ok(made.number())
}
