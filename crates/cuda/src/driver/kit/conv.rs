//! Convolution on a device.

use spikenorm_core::kit::{Conv2dForward, Conv2dSaved, LayerGrads, LayerOutput};
use spikenorm_core::{Result, Tensor};

use crate::driver::memory::{address, address_of};
use crate::driver::{Cuda, DeviceMemory};
use crate::kit::{Conv2dAddresses, Conv2dPlan, SCRATCH_BYTES};

impl Cuda {
    pub fn conv2d_forward(
        &self,
        call: &Conv2dForward<'_, DeviceMemory>,
    ) -> Result<LayerOutput<DeviceMemory, Conv2dSaved<DeviceMemory>>> {
        let (spec, frames) = (call.spec, call.frames);
        let plan = Conv2dPlan::new(spec, frames, call.x.dtype, SCRATCH_BYTES)?;
        let y = self.empty(&frames.output_shape(&call.x.shape, spec.out_channels), call.x.dtype)?;
        let saved = match call.record {
            false => None,
            true => Some(Conv2dSaved {
                spec: spec.clone(),
                frames,
                x: call.x.clone(),
                weight: self.duplicate(call.weight)?,
                has_bias: call.bias.is_some(),
            }),
        };
        let scratch = DeviceMemory::new(&self.stream, plan.scratch_bytes())?;
        self.run(&plan.forward(&Conv2dAddresses {
            x: address(call.x),
            weight: address(call.weight),
            bias: address_of(call.bias),
            y: address(&y),
            scratch: scratch.address(),
            ..Conv2dAddresses::default()
        }))?;
        Ok(LayerOutput { y, saved })
    }

    /// Skips dx unless `needs_dx`.
    pub fn conv2d_backward(
        &self,
        saved: &Conv2dSaved<DeviceMemory>,
        dy: &Tensor<DeviceMemory>,
        needs_dx: bool,
    ) -> Result<LayerGrads<DeviceMemory>> {
        let plan = Conv2dPlan::new(&saved.spec, saved.frames, dy.dtype, SCRATCH_BYTES)?;
        let grads = self.layer_grads(&saved.x, &saved.weight, saved.has_bias, needs_dx)?;
        let scratch = DeviceMemory::new(&self.stream, plan.scratch_bytes())?;
        self.run(&plan.backward(&Conv2dAddresses {
            x: address(&saved.x),
            weight: address(&saved.weight),
            y: address(dy),
            dx: address_of(grads.dx.as_ref()),
            weight_grad: address(&grads.weight),
            bias_grad: address_of(grads.bias.as_ref()),
            scratch: scratch.address(),
            ..Conv2dAddresses::default()
        }))?;
        Ok(grads)
    }
}
