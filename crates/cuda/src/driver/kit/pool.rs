//! Pooling.

use spikenorm_core::kit::{AvgPoolSaved, Frames, LayerOutput, MaxPoolSaved, PoolSpec};
use spikenorm_core::{DType, Result, Tensor};

use crate::driver::memory::{address, address_of};
use crate::driver::{Cuda, DeviceMemory};
use crate::kit::params::PoolParams;
use crate::kit::pool::{self, Pass, Pool};

impl Cuda {
    pub fn avg_pool2d_forward(
        &self,
        spec: &PoolSpec,
        frames: Frames,
        x: &Tensor<DeviceMemory>,
    ) -> Result<Tensor<DeviceMemory>> {
        let params = pool::params(spec, frames)?;
        let y = self.empty(&frames.output_shape(&x.shape, frames.channels), x.dtype)?;
        let params = PoolParams { input: address(x), out: address(&y), ..params };
        self.launch_any(pool::launch(Pool::Average, Pass::Forward, x.dtype, &params, &self.limits)?)?;
        Ok(y)
    }

    pub fn avg_pool2d_backward(
        &self,
        saved: &AvgPoolSaved,
        dy: &Tensor<DeviceMemory>,
    ) -> Result<Tensor<DeviceMemory>> {
        let params = pool::params(&saved.spec, saved.frames)?;
        let dx = self.empty(&saved.input_shape, saved.dtype)?;
        let params = PoolParams { input: address(dy), out: address(&dx), ..params };
        self.launch_any(pool::launch(Pool::Average, Pass::Backward, saved.dtype, &params, &self.limits)?)?;
        Ok(dx)
    }

    /// Saves the place of each maximum if `record`.
    pub fn max_pool2d_forward(
        &self,
        spec: &PoolSpec,
        frames: Frames,
        x: &Tensor<DeviceMemory>,
        record: bool,
    ) -> Result<LayerOutput<DeviceMemory, MaxPoolSaved<DeviceMemory>>> {
        let params = pool::params(spec, frames)?;
        let y = self.empty(&frames.output_shape(&x.shape, frames.channels), x.dtype)?;
        let saved = match record {
            false => None,
            true => Some(MaxPoolSaved {
                spec: spec.clone(),
                frames,
                input_shape: x.shape.clone(),
                dtype: x.dtype,
                indices: self.empty(&[y.len(), spec.index_bytes()], DType::U8)?,
            }),
        };
        let indices = address_of(saved.as_ref().map(|saved| &saved.indices));
        let params = PoolParams { input: address(x), out: address(&y), indices, ..params };
        self.launch_any(pool::launch(Pool::Maximum, Pass::Forward, x.dtype, &params, &self.limits)?)?;
        Ok(LayerOutput { y, saved })
    }

    pub fn max_pool2d_backward(
        &self,
        saved: &MaxPoolSaved<DeviceMemory>,
        dy: &Tensor<DeviceMemory>,
    ) -> Result<Tensor<DeviceMemory>> {
        let params = pool::params(&saved.spec, saved.frames)?;
        let dx = self.empty(&saved.input_shape, saved.dtype)?;
        let indices = address(&saved.indices);
        let params = PoolParams { input: address(dy), out: address(&dx), indices, ..params };
        self.launch_any(pool::launch(Pool::Maximum, Pass::Backward, saved.dtype, &params, &self.limits)?)?;
        Ok(dx)
    }
}
