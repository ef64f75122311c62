//! Neurons.

use spikenorm_core::kit::{NeuronForward, NeuronGrads, NeuronOutput, NeuronSaved};
use spikenorm_core::{Result, Tensor};

use crate::driver::memory::{address, address_of};
use crate::driver::{Cuda, DeviceMemory};
use crate::kit::neuron;
use crate::kit::params::NeuronParams;

impl Cuda {
    pub fn neuron_forward(
        &self,
        call: &NeuronForward<'_, DeviceMemory>,
    ) -> Result<NeuronOutput<DeviceMemory>> {
        let (grid, dtype) = (call.grid, call.x.dtype);
        let parameter = dtype.parameter();
        let spikes = self.empty(&call.x.shape, dtype)?;
        let state = self.empty(call.state_shape, parameter)?;
        let saved = match call.record {
            false => None,
            true => Some(NeuronSaved {
                spec: call.spec.clone(),
                grid,
                input_shape: call.x.shape.clone(),
                input_dtype: dtype,
                state_shape: call.state_shape.to_vec(),
                voltages: self.empty(&[grid.steps, grid.neurons], parameter)?,
            }),
        };
        let params = NeuronParams {
            input: address(call.x),
            out: address(&spikes),
            state: address_of(call.state),
            state_out: address(&state),
            voltages: address_of(saved.as_ref().map(|saved| &saved.voltages)),
            ..neuron::params(call.spec)
        };
        self.launch_any(neuron::launch("forward", dtype, grid, &params, &self.limits)?)?;
        Ok(NeuronOutput { spikes, state, saved })
    }

    pub fn neuron_backward(
        &self,
        saved: &NeuronSaved<DeviceMemory>,
        dy: &Tensor<DeviceMemory>,
        carry: Option<&Tensor<DeviceMemory>>,
    ) -> Result<NeuronGrads<DeviceMemory>> {
        let dtype = saved.input_dtype;
        let dx = self.empty(&saved.input_shape, dtype)?;
        let state = self.empty(&saved.state_shape, dtype.parameter())?;
        let params = NeuronParams {
            input: address(dy),
            out: address(&dx),
            state: address_of(carry),
            state_out: address(&state),
            voltages: address(&saved.voltages),
            ..neuron::params(&saved.spec)
        };
        self.launch_any(neuron::launch("backward", dtype, saved.grid, &params, &self.limits)?)?;
        Ok(NeuronGrads { dx, state })
    }
}
