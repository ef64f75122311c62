//! Integrate-and-fire neurons over all time steps, in one launch each way.

use std::f64::consts::FRAC_PI_2;

use spikenorm_core::kit::{Charge, NeuronGrid, NeuronSpec, Surrogate};
use spikenorm_core::norm::CudaDevice;
use spikenorm_core::{DType, Result};

use super::params::{NeuronParams, Span};
use super::span::widest;
use super::{Operand, over};
use crate::launches::Launch;
use crate::params::float_name;

/// What is left for the caller: the addresses.
pub fn params(spec: &NeuronSpec) -> NeuronParams {
    let (to_input, to_state) = spec.charge_slopes();
    let (charge, tau) = match spec.charge {
        Charge::Integrate => (0, 1.0),
        Charge::Leaky { tau, decay_input: true } => (1, tau),
        Charge::Leaky { tau, decay_input: false } => (2, tau),
    };
    let (surrogate, slope, height) = match spec.surrogate {
        Surrogate::Atan { alpha } => (0, FRAC_PI_2 * alpha, alpha / 2.0),
        Surrogate::Sigmoid { alpha } => (1, alpha, alpha),
    };
    NeuronParams {
        tau,
        threshold: spec.v_threshold,
        rest: spec.initial_voltage(),
        slope,
        height,
        to_input,
        to_state,
        charge,
        surrogate,
        hard_reset: spec.v_reset.is_some().into(),
        detach_reset: spec.detach_reset.into(),
        ..Default::default()
    }
}

/// `pass` is "forward" or "backward"; `dtype` is that of the input.
pub fn launch(
    pass: &str,
    dtype: DType,
    grid: NeuronGrid,
    params: &NeuronParams,
    device: &CudaDevice,
) -> Result<Option<Launch<NeuronParams>>> {
    let kernel = format!("neuron_{pass}_{}", float_name(dtype)?);
    let parameter = dtype.parameter();
    let width = widest(parameter);
    let operands = [
        Operand::new(params.input, dtype),
        Operand::new(params.out, dtype),
        Operand::new(params.state, parameter),
        Operand::new(params.state_out, parameter),
        Operand::new(params.voltages, parameter),
    ];
    let span = Span::of_rows(grid.steps, grid.neurons, width, &operands);
    let params = NeuronParams { span, steps: grid.steps as u64, ..*params };
    Ok(over(kernel, span.items(width), params, device))
}
