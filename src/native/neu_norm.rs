//! NeuNorm for JavaScript.

use napi::Env;
use napi::bindgen_prelude::Object;
use napi_derive::napi;
use spikenorm_core::{NeuNormForward, NeuNormSaved, NeuNormSpec};

use crate::device::{Place, on_device};
use crate::error::{Checked, Result, face};
use crate::handles::{
    Handle, Packed, device_of, expect_room, insert, insert_optional, insert_saved_of, insert_tensor, lend,
    packed, put_tensor, remove, watch,
};
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

/// Forward from `state` (0: zero), which becomes the state after the last step. Returns y, which lives as long as `owner`,
/// and saved, which is 0 without `record`, and the state where there was none.
#[napi]
pub fn neu_norm_forward(
    env: Env,
    owner: Object<'_>,
    spec: u32,
    x: u32,
    is_multi: bool,
    weight: u32,
    state: u32,
    record: bool,
) -> Result<Packed> {
    face(|| {
        let [y, saved, state] = on_device!(device_of(x)?, backend => forward(backend, spec, x, is_multi, [weight, state], record))?;
        watch(&env, &owner, y)?;
        Ok(packed([y, saved], [state, 0]))
    })
}

fn forward<B: Place>(
    backend: &B,
    spec: Handle,
    x: Handle,
    is_multi: bool,
    [weight, state]: [Handle; 2],
    record: bool,
) -> Checked<[Handle; 3]> {
    expect_room()?;
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
    let state = put_tensor(backend, state, output.state)?;
    let y = insert_tensor(backend, output.y);
    Ok([y, insert_saved_of(backend, output.saved, spec), state])
}

/// Backward of a saved forward, which is used up. `carry` is the gradient of the state after the last step (0: none); it
/// becomes that of the state before the first. dw is added to `weight_grad`. Returns dx, which lives as long as `owner`, and
/// dw and the state's gradient where they were not given.
#[napi]
pub fn neu_norm_backward(
    env: Env,
    owner: Object<'_>,
    saved: u32,
    dy: u32,
    carry: u32,
    weight_grad: u32,
) -> Result<Packed> {
    face(|| {
        let [dx, weight, state] =
            on_device!(device_of(saved)?, backend => backward(backend, saved, dy, carry, weight_grad))?;
        remove(&env, saved);
        watch(&env, &owner, dx)?;
        Ok(packed([dx, weight], [state, 0]))
    })
}

fn backward<B: Place>(
    backend: &B,
    saved: Handle,
    dy: Handle,
    carry: Handle,
    weight_grad: Handle,
) -> Checked<[Handle; 3]> {
    expect_room()?;
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
    let state = put_tensor(backend, carry, state)?;
    let dx = insert_tensor(backend, dx);
    Ok([dx, insert_optional(backend, weight), state])
}
