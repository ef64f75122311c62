//! NeuNorm for JavaScript.

use napi_derive::napi;
use spikenorm_core::{Backend, NeuNormForward, NeuNormSaved, NeuNormSpec};
use spikenorm_cpu::{Cpu, HostMemory};

use crate::error::{Result, face};
use crate::handles::{get, insert, insert_tensor, optional_tensor, tensor};
use crate::norm::step_mode;
use crate::tensor::{Handles, expect_gradient, expect_parameter_dtype};

/// Registers a specification.
#[napi]
pub fn neu_norm_spec(channels: u32, height: u32, width: u32, k: f64, shared: bool) -> Result<u32> {
    face(|| {
        Ok(insert(NeuNormSpec {
            channels: channels as usize,
            height: height as usize,
            width: width as usize,
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
    face(|| {
        let spec = get(spec, |spec: &NeuNormSpec| Ok(spec.clone()))?;
        let (x, weight, state) = (tensor(x)?, tensor(weight)?, optional_tensor(state)?);
        let grid = spec.grid(&x.shape, step_mode(is_multi), state.as_ref().map(|state| &*state.shape))?;
        expect_parameter_dtype("w", &weight, x.dtype)?;
        if let Some(state) = &state {
            state.expect_dtype("state carried over", x.dtype.parameter())?;
        }
        let output = Cpu.neu_norm_forward(&NeuNormForward {
            spec: &spec,
            grid,
            x: &x,
            weight: &weight,
            state: state.as_ref(),
            record,
        })?;
        Ok(vec![insert_tensor(output.y), insert_tensor(output.state), output.saved.map_or(0, insert)])
    })
}

/// Backward; `carry` is the gradient of the state after the last step (0: none). Returns
/// `[dx, dw, gradient of the state before the first step]`.
#[napi]
pub fn neu_norm_backward(saved: u32, dy: u32, carry: u32) -> Result<Handles> {
    face(|| {
        let (dy, carry) = (tensor(dy)?, optional_tensor(carry)?);
        let grads = get(saved, |saved: &NeuNormSaved<HostMemory>| {
            expect_gradient(&dy, &saved.input_shape, saved.input_dtype)?;
            Cpu.neu_norm_backward(saved, &dy, carry.as_ref())
        })?;
        Ok(vec![insert_tensor(grads.dx), insert_tensor(grads.weight), insert_tensor(grads.state)])
    })
}
