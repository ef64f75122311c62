//! What the layers with weights share: running their steps, and room for their gradients.

use spikenorm_core::kit::LayerGrads;
use spikenorm_core::{Result, Tensor};

use crate::driver::{Cuda, DeviceMemory};
use crate::kit::Step;

impl Cuda {
    /// Puts `steps` on the stream, in order.
    pub(super) fn run(&self, steps: &[Step]) -> Result<()> {
        steps.iter().try_for_each(|step| match step {
            Step::Launch(launch) => self.launch(launch),
            Step::Product(product) => self.multiply(product),
        })
    }

    /// Unspecified values, but zeros where no step of a backward will come: without input values.
    pub(super) fn layer_grads(
        &self,
        x: &Tensor<DeviceMemory>,
        weight: &Tensor<DeviceMemory>,
        has_bias: bool,
        needs_dx: bool,
    ) -> Result<LayerGrads<DeviceMemory>> {
        let parameter = |shape: &[usize]| match x.is_empty() {
            false => self.empty(shape, weight.dtype),
            true => self.zeros(shape, weight.dtype),
        };
        Ok(LayerGrads {
            dx: if needs_dx { Some(self.empty(&x.shape, x.dtype)?) } else { None },
            weight: parameter(&weight.shape)?,
            bias: if has_bias { Some(parameter(&weight.shape[..1])?) } else { None },
        })
    }
}
