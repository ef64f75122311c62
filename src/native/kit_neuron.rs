//! Neurons for JavaScript.

use napi_derive::napi;
use spikenorm_core::kit::{Charge, NeuronForward, NeuronSaved, NeuronSpec, Surrogate};
use spikenorm_core::{Backend, bail};
use spikenorm_cpu::{Cpu, HostMemory};

use crate::error::{Result, face};
use crate::handles::{get, insert, insert_tensor, optional_tensor, tensor};
use crate::norm::step_mode;
use crate::tensor::{Handles, expect_gradient};

/// `NeuronSpec` as TypeScript writes it.
#[napi(object)]
pub struct NeuronConfig {
    /// Absent: no leak.
    pub tau: Option<f64>,
    pub decay_input: bool,
    pub v_threshold: f64,
    /// Absent: soft reset.
    pub v_reset: Option<f64>,
    pub surrogate: String,
    pub detach_reset: bool,
}

/// Checks and registers a specification.
#[napi]
pub fn neuron_spec(config: NeuronConfig) -> Result<u32> {
    face(|| {
        let leaky = |tau| Charge::Leaky { tau, decay_input: config.decay_input };
        let spec = NeuronSpec {
            charge: config.tau.map_or(Charge::Integrate, leaky),
            v_threshold: config.v_threshold,
            v_reset: config.v_reset,
            surrogate: Surrogate::from_name(&config.surrogate)?,
            detach_reset: config.detach_reset,
        };
        spec.check()?;
        Ok(insert(spec))
    })
}

/// Forward from `state` (0: the initial voltage). Returns `[spikes, state, saved]`, saved 0 without `record`.
#[napi]
pub fn neuron_forward(spec: u32, x: u32, is_multi: bool, state: u32, record: bool) -> Result<Handles> {
    face(|| {
        let spec = get(spec, |spec: &NeuronSpec| Ok(spec.clone()))?;
        let (x, state) = (tensor(x)?, optional_tensor(state)?);
        let grid = spec.grid(&x.shape, step_mode(is_multi), state.as_ref().map(|state| &*state.shape))?;
        if !x.dtype.is_float() {
            bail!(Dtype, "input: expected float64, float32, float16 or bfloat16, got {}", x.dtype.name());
        }
        if let Some(state) = &state {
            state.expect_dtype("state carried over", x.dtype.parameter())?;
        }
        let output = Cpu.neuron_forward(&NeuronForward {
            spec: &spec,
            grid,
            x: &x,
            state: state.as_ref(),
            state_shape: &x.shape[usize::from(is_multi)..],
            record,
        })?;
        Ok(vec![insert_tensor(output.spikes), insert_tensor(output.state), output.saved.map_or(0, insert)])
    })
}

/// Backward; `carry` is the gradient of the voltage after the last step (0: none). Returns
/// `[dx, gradient of the voltage before the first step]`.
#[napi]
pub fn neuron_backward(saved: u32, dy: u32, carry: u32) -> Result<Handles> {
    face(|| {
        let (dy, carry) = (tensor(dy)?, optional_tensor(carry)?);
        let grads = get(saved, |saved: &NeuronSaved<HostMemory>| {
            expect_gradient(&dy, &saved.input_shape, saved.input_dtype)?;
            Cpu.neuron_backward(saved, &dy, carry.as_ref())
        })?;
        Ok(vec![insert_tensor(grads.dx), insert_tensor(grads.state)])
    })
}
