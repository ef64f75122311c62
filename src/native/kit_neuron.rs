//! Neurons for JavaScript.

use napi_derive::napi;
use spikenorm_core::bail;
use spikenorm_core::kit::{Charge, NeuronForward, NeuronSaved, NeuronSpec, Surrogate};

use crate::device::{Place, on_device};
use crate::error::{Checked, Result, face};
use crate::handles::{Handle, Made, device_of, get, insert, optional_tensor, tensor};
use crate::norm::step_mode;
use crate::tensor::expect_gradient;

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
pub fn neuron_spec(config: NeuronConfig) -> Result<f64> {
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

/// Forward from `state` (0: the initial voltage). Makes the spikes, the state after the last step and,
/// with `record`, saved.
#[napi]
pub fn neuron_forward(spec: f64, x: f64, is_multi: bool, state: f64, record: bool) -> Result<f64> {
    face(|| on_device!(device_of(x)?, backend => forward(backend, spec, x, is_multi, state, record)))
}

fn forward<B: Place>(
    backend: &B,
    spec: Handle,
    x: Handle,
    is_multi: bool,
    state: Handle,
    record: bool,
) -> Checked<f64> {
    let spec = get(spec, |spec: &NeuronSpec| Ok(spec.clone()))?;
    let x = tensor(backend, "input", x)?;
    let state = optional_tensor(backend, "state carried over", state)?;
    let grid = spec.grid(&x.shape, step_mode(is_multi), state.as_ref().map(|state| &*state.shape))?;
    if !x.dtype.is_float() {
        bail!(Dtype, "input: expected float64, float32, float16 or bfloat16, got {}", x.dtype.name());
    }
    if let Some(state) = &state {
        state.expect_dtype("state carried over", x.dtype.parameter())?;
    }
    let mut made = Made::new()?;
    let output = backend.neuron_forward(&NeuronForward {
        spec: &spec,
        grid,
        x: &x,
        state: state.as_ref(),
        state_shape: &x.shape[usize::from(is_multi)..],
        record,
    })?;
    made.tensor(0, backend, output.spikes);
    made.tensor(1, backend, output.state);
    made.saved(2, backend, output.saved);
    Ok(made.number())
}

/// Backward; `carry` is the gradient of the voltage after the last step (0: none). Makes dx and
/// the gradient of the voltage before the first step.
#[napi]
pub fn neuron_backward(saved: f64, dy: f64, carry: f64) -> Result<f64> {
    face(|| on_device!(device_of(saved)?, backend => backward(backend, saved, dy, carry)))
}

fn backward<B: Place>(backend: &B, saved: Handle, dy: Handle, carry: Handle) -> Checked<f64> {
    let dy = tensor(backend, "dy", dy)?;
    let carry = optional_tensor(backend, "gradient carried over", carry)?;
    let mut made = Made::new()?;
    let grads = get(saved, |saved: &NeuronSaved<B::Memory>| {
        expect_gradient(&dy, &saved.input_shape, saved.input_dtype)?;
        backend.neuron_backward(saved, &dy, carry.as_ref())
    })?;
    made.tensor(0, backend, grads.dx);
    made.tensor(1, backend, grads.state);
    Ok(made.number())
}
