//! The fully connected layer on a device.

use spikenorm_core::kit::{LayerGrads, LayerOutput, LinearForward, LinearSaved};
use spikenorm_core::{Result, Tensor};

use crate::driver::memory::{address, address_of};
use crate::driver::{Cuda, DeviceMemory};
use crate::kit::{LinearAddresses, LinearPlan, SCRATCH_BYTES};

impl Cuda {
    pub fn linear_forward(
        &self,
        call: &LinearForward<'_, DeviceMemory>,
    ) -> Result<LayerOutput<DeviceMemory, LinearSaved<DeviceMemory>>> {
        let plan = LinearPlan::new(call.spec, call.rows, call.x.dtype, SCRATCH_BYTES)?;
        let y = self.empty(&call.spec.output_shape(&call.x.shape), call.x.dtype)?;
        let saved = match call.record {
            false => None,
            true => Some(LinearSaved {
                spec: call.spec.clone(),
                rows: call.rows,
                x: call.x.clone(),
                weight: self.duplicate(call.weight)?,
                has_bias: call.bias.is_some(),
            }),
        };
        let scratch = DeviceMemory::new(&self.stream, plan.scratch_bytes())?;
        self.run(&plan.forward(&LinearAddresses {
            x: address(call.x),
            weight: address(call.weight),
            bias: address_of(call.bias),
            y: address(&y),
            scratch: scratch.address(),
            ..LinearAddresses::default()
        }))?;
        Ok(LayerOutput { y, saved })
    }

    /// Skips dx unless `needs_dx`.
    pub fn linear_backward(
        &self,
        saved: &LinearSaved<DeviceMemory>,
        dy: &Tensor<DeviceMemory>,
        needs_dx: bool,
    ) -> Result<LayerGrads<DeviceMemory>> {
        let plan = LinearPlan::new(&saved.spec, saved.rows, dy.dtype, SCRATCH_BYTES)?;
        let grads = self.layer_grads(&saved.x, &saved.weight, saved.has_bias, needs_dx)?;
        let scratch = DeviceMemory::new(&self.stream, plan.scratch_bytes())?;
        self.run(&plan.backward(&LinearAddresses {
            x: address(&saved.x),
            weight: address(&saved.weight),
            y: address(dy),
            dx: address_of(grads.dx.as_ref()),
            weight_grad: address(&grads.weight),
            bias_grad: address_of(grads.bias.as_ref()),
            scratch: scratch.address(),
            ..LinearAddresses::default()
        }))?;
        Ok(grads)
    }
}
