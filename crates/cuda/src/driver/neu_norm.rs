//! NeuNorm on a device: plan, allocate, launch.

use spikenorm_core::norm::CudaNeuNormPlan;
use spikenorm_core::{NeuNormForward, NeuNormGrads, NeuNormOutput, NeuNormSaved, Result, Tensor};

use super::memory::{address, address_of, alignment};
use super::{Cuda, DeviceMemory};
use crate::launches::neu_norm_launch;
use crate::params::NeuNormParams;

impl Cuda {
    pub fn neu_norm_forward(
        &self,
        call: &NeuNormForward<'_, DeviceMemory>,
    ) -> Result<NeuNormOutput<DeviceMemory>> {
        let (spec, grid, parameter) = (call.spec, call.grid, call.x.dtype.parameter());
        let y = self.empty(&call.x.shape, call.x.dtype)?;
        let state = self.empty(&[grid.n, 1, spec.height, spec.width], parameter)?;
        let saved = match call.record {
            false => None,
            true => Some(NeuNormSaved {
                spec: spec.clone(),
                grid,
                input_shape: call.x.shape.clone(),
                input_dtype: call.x.dtype,
                weight: self.duplicate(call.weight)?,
                states: self.empty(&[grid.t, grid.n, grid.s], parameter)?,
            }),
        };
        // The state of an empty batch is empty too.
        if grid.is_empty() {
            return Ok(NeuNormOutput { y, state, saved });
        }
        let aligned = alignment(&[address(call.x), address(&y)]);
        let plan = CudaNeuNormPlan::new(false, grid, spec.layout, call.x.dtype, aligned, &self.limits)?;
        let params = NeuNormParams {
            input: address(call.x),
            out: address(&y),
            weight: address(call.weight),
            state: address_of(call.state),
            state_out: address(&state),
            states: address_of(saved.as_ref().map(|saved| &saved.states)),
            ..NeuNormParams::new(spec, &plan)
        };
        self.launch(&neu_norm_launch("forward", &plan, &params))?;
        Ok(NeuNormOutput { y, state, saved })
    }

    pub fn neu_norm_backward(
        &self,
        saved: &NeuNormSaved<DeviceMemory>,
        dy: &Tensor<DeviceMemory>,
        carry: Option<&Tensor<DeviceMemory>>,
    ) -> Result<NeuNormGrads<DeviceMemory>> {
        let (spec, grid, parameter) = (&saved.spec, saved.grid, saved.input_dtype.parameter());
        let dx = self.empty(&saved.input_shape, saved.input_dtype)?;
        let state = self.empty(&[grid.n, 1, spec.height, spec.width], parameter)?;
        if grid.is_empty() {
            return Ok(NeuNormGrads { dx, weight: self.zeros(&saved.weight.shape, parameter)?, state });
        }
        let weight = self.empty(&saved.weight.shape, parameter)?;
        let aligned = alignment(&[address(dy), address(&dx)]);
        let plan = CudaNeuNormPlan::new(true, grid, spec.layout, saved.input_dtype, aligned, &self.limits)?;
        let partial = self.empty(&[plan.groups, saved.weight.len()], parameter)?;
        let tickets = self.tickets(plan.strips)?;
        let params = NeuNormParams {
            input: address(dy),
            out: address(&dx),
            weight: address(&saved.weight),
            state: address_of(carry),
            state_out: address(&state),
            states: address(&saved.states),
            weight_grad: address(&weight),
            partial: address(&partial),
            tickets: tickets.address(),
            ..NeuNormParams::new(spec, &plan)
        };
        self.launch(&neu_norm_launch("backward", &plan, &params))?;
        Ok(NeuNormGrads { dx, weight, state })
    }
}
