//! NeuNorm for JavaScript.

use napi::Env;
use napi::bindgen_prelude::Object;
use napi_derive::napi;
use spikenorm_core::{NeuNormForward, NeuNormSaved, NeuNormSpec, Tensor};

use crate::device::{Place, on_device};
use crate::error::{Checked, Result, face};
use crate::handles::{Handle, Made, device_of, insert, lend, remove, set_tensor, watch};
use crate::norm::{accumulate, layout, step_mode};
use crate::tensor::{expect_gradient, expect_parameter_dtype};

/// Registers a specification.
#[napi]
pub fn neu_norm_spec(
    channels: u32,
    height: u32,
    width: u32,
    channels_last: bool,
    k: f64,
    shared: bool,
) -> Result<f64> {
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

/// Forward from `state` (0: zero), which becomes the state after the last step. Makes y, which lives as long as `owner`,
/// with `record` saved, and the state where there was none.
#[napi]
pub fn neu_norm_forward(
    env: Env,
    owner: Object<'_>,
    spec: f64,
    x: f64,
    is_multi: bool,
    weight: f64,
    state: f64,
    record: bool,
) -> Result<f64> {
    face(|| {
        let made = on_device!(device_of(x)?, backend => forward(backend, spec, x, is_multi, [weight, state], record))?;
        watch(&env, &owner, made.handle(0))?;
        Ok(made.number())
    })
}

fn forward<B: Place>(
    backend: &B,
    spec: Handle,
    x: Handle,
    is_multi: bool,
    [weight, state]: [Handle; 2],
    record: bool,
) -> Checked<Made> {
    let mut made = Made::new()?;
    let output = lend(|registry| {
        let spec: &NeuNormSpec = registry.value(spec)?;
        let x = registry.tensor(backend, "input", x)?;
        let weight = registry.tensor(backend, "w", weight)?;
        let state = registry.optional_tensor(backend, "state carried over", state)?;
        let grid = spec.grid(&x.shape, step_mode(is_multi), state.map(|state| &*state.shape))?;
        expect_parameter_dtype("w", weight, x.dtype)?;
        if let Some(state) = state {
            state.expect_dtype("state carried over", x.dtype.parameter())?;
        }
        backend.neu_norm_forward(&NeuNormForward { spec, grid, x, weight, state, record })
    })?;
    made.tensor(0, backend, output.y);
    made.saved_of(1, backend, output.saved, spec);
    put(backend, state, output.state, &mut made)?;
    Ok(made)
}

/// Puts a state, or its gradient, in the place of the one given, or (0) among what is made.
fn put<B: Place>(backend: &B, given: Handle, tensor: Tensor<B::Memory>, made: &mut Made) -> Checked<()> {
    if given == 0.0 {
        made.tensor(2, backend, tensor);
        return Ok(());
    }
    set_tensor(backend, given, tensor)
}

/// Backward of a saved forward, which is used up unless `keep_saved`. `carry` is the gradient of the state after the last
/// step (0: none); it becomes that of the state before the first. dw is added to `weight_grad`. Makes dx, which lives as
/// long as `owner`, and dw and the state's gradient where they were not given.
#[napi]
pub fn neu_norm_backward(
    env: Env,
    owner: Object<'_>,
    saved: f64,
    dy: f64,
    carry: f64,
    weight_grad: f64,
    keep_saved: bool,
) -> Result<f64> {
    face(|| {
        let made =
            on_device!(device_of(saved)?, backend => backward(backend, saved, dy, carry, weight_grad))?;
        if !keep_saved {
            remove(&env, saved);
        }
        watch(&env, &owner, made.handle(0))?;
        Ok(made.number())
    })
}

fn backward<B: Place>(
    backend: &B,
    saved: Handle,
    dy: Handle,
    carry: Handle,
    weight_grad: Handle,
) -> Checked<Made> {
    let mut made = Made::new()?;
    let (dx, state, [weight]) = lend(|registry| {
        let saved: &NeuNormSaved<B::Memory> = registry.value(saved)?;
        let dy = registry.tensor(backend, "dy", dy)?;
        let carry = registry.optional_tensor(backend, "gradient carried over", carry)?;
        expect_gradient(dy, &saved.input_shape, saved.input_dtype)?;
        let grads = backend.neu_norm_backward(saved, dy, carry)?;
        let mut fresh = [Some(grads.weight)];
        accumulate(backend, registry, &mut fresh, [weight_grad])?;
        Ok((grads.dx, grads.state, fresh))
    })?;
    made.tensor(0, backend, dx);
    made.optional_tensor(1, backend, weight);
    put(backend, carry, state, &mut made)?;
    Ok(made)
}
