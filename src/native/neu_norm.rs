//! NeuNorm for JavaScript.

use napi_derive::napi;
use spikenorm_core::{NeuNormForward, NeuNormSaved, NeuNormSpec};

use crate::device::{Place, on_device};
use crate::error::{Checked, Result, face};
use crate::handles::{Handle, device_of, get, insert, insert_saved, insert_tensor, optional_tensor, tensor};
use crate::norm::{layout, step_mode};
use crate::tensor::{Handles, expect_gradient, expect_parameter_dtype};

/// Registers a specification.
#[napi]
pub fn neu_norm_spec(
    channels: u32,
    height: u32,
    width: u32,
    channels_last: bool,
    k: f64,
    shared: bool,
) -> Result<u32> {
    face(|| {
        Ok(insert(NeuNormSpec {
            channels: channels as usize,
            height: height as usize,
            width: width as usize,
            layout: layout(channels_last),
            k,
            shared,
        }))
    })
}

/// Forward from `state` (0: zero). Returns `[y, state, saved]`, saved 0 without `record`.
#[napi]
pub fn neu_norm_forward(
    spec: u32,
    x: u32,
    is_multi: bool,
    weight: u32,
    state: u32,
    record: bool,
) -> Result<Handles> {
    face(
        || on_device!(device_of(x)?, backend => forward(backend, spec, x, is_multi, [weight, state], record)),
    )
}

fn forward<B: Place>(
    backend: &B,
    spec: Handle,
    x: Handle,
    is_multi: bool,
    [weight, state]: [Handle; 2],
    record: bool,
) -> Checked<Handles> {
    let spec = get(spec, |spec: &NeuNormSpec| Ok(spec.clone()))?;
    let (x, weight) = (tensor(backend, "input", x)?, tensor(backend, "w", weight)?);
    let state = optional_tensor(backend, "state carried over", state)?;
    let grid = spec.grid(&x.shape, step_mode(is_multi), state.as_ref().map(|state| &*state.shape))?;
    expect_parameter_dtype("w", &weight, x.dtype)?;
    if let Some(state) = &state {
        state.expect_dtype("state carried over", x.dtype.parameter())?;
    }
    let output = backend.neu_norm_forward(&NeuNormForward {
        spec: &spec,
        grid,
        x: &x,
        weight: &weight,
        state: state.as_ref(),
        record,
    })?;
    Ok(vec![
        insert_tensor(backend, output.y),
        insert_tensor(backend, output.state),
        insert_saved(backend, output.saved),
    ])
}

/// Backward; `carry` is the gradient of the state after the last step (0: none). Returns
/// `[dx, dw, gradient of the state before the first step]`.
#[napi]
pub fn neu_norm_backward(saved: u32, dy: u32, carry: u32) -> Result<Handles> {
    face(|| on_device!(device_of(saved)?, backend => backward(backend, saved, dy, carry)))
}

fn backward<B: Place>(backend: &B, saved: Handle, dy: Handle, carry: Handle) -> Checked<Handles> {
    let dy = tensor(backend, "dy", dy)?;
    let carry = optional_tensor(backend, "gradient carried over", carry)?;
    let grads = get(saved, |saved: &NeuNormSaved<B::Memory>| {
        expect_gradient(&dy, &saved.input_shape, saved.input_dtype)?;
        backend.neu_norm_backward(saved, &dy, carry.as_ref())
    })?;
    Ok(vec![
        insert_tensor(backend, grads.dx),
        insert_tensor(backend, grads.weight),
        insert_tensor(backend, grads.state),
    ])
}
