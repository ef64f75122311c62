//! The fully connected layer for JavaScript.

use napi_derive::napi;
use spikenorm_core::kit::{LinearForward, LinearSaved, LinearSpec};

use crate::device::{Place, on_device};
use crate::error::{Checked, Result, face};
use crate::handles::{
    Handle, device_of, get, insert, insert_optional, insert_saved, insert_tensor, optional_tensor, tensor,
};
use crate::tensor::{Handles, expect_gradient, expect_parameter_dtype};

/// Checks and registers a specification.
#[napi]
pub fn linear_spec(in_features: u32, out_features: u32) -> Result<u32> {
    face(|| {
        let spec = LinearSpec { in_features: in_features as usize, out_features: out_features as usize };
        spec.check()?;
        Ok(insert(spec))
    })
}

/// Forward; `bias` 0 for none. Returns `[y, saved]`, saved 0 without `record`.
#[napi]
pub fn linear_forward(spec: u32, x: u32, weight: u32, bias: u32, record: bool) -> Result<Handles> {
    face(|| on_device!(device_of(x)?, backend => forward(backend, spec, x, [weight, bias], record)))
}

fn forward<B: Place>(
    backend: &B,
    spec: Handle,
    x: Handle,
    [weight, bias]: [Handle; 2],
    record: bool,
) -> Checked<Handles> {
    let spec = get(spec, |spec: &LinearSpec| Ok(spec.clone()))?;
    let (x, weight) = (tensor(backend, "input", x)?, tensor(backend, "weight", weight)?);
    let bias = optional_tensor(backend, "bias", bias)?;
    let rows = spec.rows(&x.shape)?;
    expect_parameter_dtype("weight", &weight, x.dtype)?;
    let call = LinearForward { spec: &spec, rows, x: &x, weight: &weight, bias: bias.as_ref(), record };
    let output = backend.linear_forward(&call)?;
    Ok(vec![insert_tensor(backend, output.y), insert_saved(backend, output.saved)])
}

/// Backward of a saved forward. Returns `[dx, dweight, dbias]`, 0 where absent.
#[napi]
pub fn linear_backward(saved: u32, dy: u32) -> Result<Handles> {
    face(|| on_device!(device_of(saved)?, backend => backward(backend, saved, dy)))
}

fn backward<B: Place>(backend: &B, saved: Handle, dy: Handle) -> Checked<Handles> {
    let dy = tensor(backend, "dy", dy)?;
    let grads = get(saved, |saved: &LinearSaved<B::Memory>| {
        expect_gradient(&dy, &saved.spec.output_shape(&saved.x.shape), saved.x.dtype)?;
        backend.linear_backward(saved, &dy, true)
    })?;
    Ok(vec![
        insert_optional(backend, grads.dx),
        insert_tensor(backend, grads.weight),
        insert_optional(backend, grads.bias),
    ])
}
