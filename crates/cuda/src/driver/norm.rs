//! The batch norm family on a device: plan, allocate, launch.

use std::sync::Arc;

use spikenorm_core::norm::{
    CudaPass, CudaPlan, NormForward, NormGrads, NormOutput, NormSaved, NormSpec, Statistics,
};
use spikenorm_core::{Result, Tensor};

use super::memory::{address, address_of};
use super::{Cuda, DeviceMemory};
use crate::launches::{Workspace, norm_launches};
use crate::params::NormParams;

/// Scratch memory of one pass: freed, in stream order, when the pass has been launched.
struct Scratch {
    slots: DeviceMemory,
    row_means: DeviceMemory,
    scale_terms: DeviceMemory,
    barriers: Arc<DeviceMemory>,
}

impl Scratch {
    fn new(cuda: &Cuda, plan: &CudaPlan, spec: &NormSpec, scale_gradient: bool) -> Result<Self> {
        let sizes = Workspace::of_norm(plan, spec.statistics, scale_gradient);
        let doubles = |count: usize| DeviceMemory::new(&cuda.stream, 8 * count);
        Ok(Self {
            slots: doubles(sizes.slots)?,
            row_means: doubles(sizes.row_means)?,
            scale_terms: doubles(sizes.scale_terms)?,
            barriers: cuda.barriers(sizes.barriers)?,
        })
    }

    fn addresses(&self, params: NormParams) -> NormParams {
        NormParams {
            slots: self.slots.address(),
            row_means: self.row_means.address(),
            scale_terms: self.scale_terms.address(),
            barriers: self.barriers.address(),
            ..params
        }
    }
}

impl Cuda {
    pub fn norm_forward(&self, call: &NormForward<'_, DeviceMemory>) -> Result<NormOutput<DeviceMemory>> {
        if call.grid.is_empty() {
            return self.norm_forward_of_nothing(call);
        }
        let batch_statistics = matches!(call.statistics, Statistics::Batch(_));
        let pass = if batch_statistics { CudaPass::Forward } else { CudaPass::Apply };
        let plan = self.norm_plan(pass, call.grid, call.x.dtype, &[address(call.x)])?;
        self.norm_forward_by(call, &plan)
    }

    /// Without values there is nothing to launch, and running statistics stay.
    fn norm_forward_of_nothing(
        &self,
        call: &NormForward<'_, DeviceMemory>,
    ) -> Result<NormOutput<DeviceMemory>> {
        let y = self.empty(&call.x.shape, call.x.dtype)?;
        let saved = match call.record {
            false => None,
            true => {
                let statistics = self.empty(&[0], call.x.dtype.parameter())?;
                Some(self.save(call, statistics, matches!(call.statistics, Statistics::Batch(_)))?)
            }
        };
        Ok(NormOutput { y, saved })
    }

    /// The same by a plan for this pass, shape, dtype and alignment.
    pub fn norm_forward_by(
        &self,
        call: &NormForward<'_, DeviceMemory>,
        plan: &CudaPlan,
    ) -> Result<NormOutput<DeviceMemory>> {
        let (spec, grid, parameter) = (call.spec, call.grid, call.x.dtype.parameter());
        let batch_statistics = matches!(call.statistics, Statistics::Batch(_));
        let y = self.empty(&call.x.shape, call.x.dtype)?;
        // The halves of a pass in several launches meet in the statistics, so they are there in any case.
        let statistics = self.empty(&[3, spec.statistics.count(grid.t), grid.c], parameter)?;
        let scratch = Scratch::new(self, plan, spec, false)?;
        let mut params = NormParams {
            x: address(call.x),
            out: address(&y),
            weight: address_of(call.weight),
            bias: address_of(call.bias),
            scale: address_of(call.scale),
            statistics: address(&statistics),
            ..scratch.addresses(NormParams::new(spec, plan, batch_statistics))
        };
        match &call.statistics {
            Statistics::Batch(None) => {}
            Statistics::Batch(Some(update)) => {
                params.running_mean = address(update.mean);
                params.running_var = address(update.var);
                params.counters = address(update.counters);
                params.momentum = update.momentum.unwrap_or(f64::NAN);
            }
            Statistics::Running { mean, var } => {
                params.running_mean = address(mean);
                params.running_var = address(var);
            }
        }
        // Memory first: a launch moves the running statistics, and nothing may fail after it.
        let saved =
            if call.record { Some(self.save(call, statistics.clone(), batch_statistics)?) } else { None };
        if let Some(saved) = &saved {
            params.weight_out = address_of(saved.weight.as_ref());
            params.bias_out = address_of(saved.bias.as_ref());
            params.scale_out = address_of(saved.scale.as_ref());
        }
        self.launch_all(&norm_launches(plan, &params))?;
        drop((scratch, statistics));
        Ok(NormOutput { y, saved })
    }

    /// What backward needs. The kernel that reads the small tensors fills their copies.
    fn save(
        &self,
        call: &NormForward<'_, DeviceMemory>,
        statistics: Tensor<DeviceMemory>,
        batch_statistics: bool,
    ) -> Result<NormSaved<DeviceMemory>> {
        let copy =
            |tensor: Option<&Tensor<DeviceMemory>>| tensor.map(|x| self.empty(&x.shape, x.dtype)).transpose();
        Ok(NormSaved {
            spec: call.spec.clone(),
            grid: call.grid,
            x: call.x.clone(),
            statistics,
            batch_statistics,
            weight: copy(call.weight)?,
            bias: copy(call.bias)?,
            scale: copy(call.scale)?,
        })
    }

    pub fn norm_backward(
        &self,
        saved: &NormSaved<DeviceMemory>,
        dy: &Tensor<DeviceMemory>,
    ) -> Result<NormGrads<DeviceMemory>> {
        if saved.grid.is_empty() {
            let zeros = |x: &Option<Tensor<DeviceMemory>>| {
                x.as_ref().map(|x| self.zeros(&x.shape, x.dtype)).transpose()
            };
            return Ok(NormGrads {
                dx: self.empty(&saved.x.shape, saved.x.dtype)?,
                weight: zeros(&saved.weight)?,
                bias: zeros(&saved.bias)?,
                scale: zeros(&saved.scale)?,
            });
        }
        let addresses = [address(&saved.x), address(dy)];
        let plan = self.norm_plan(CudaPass::Backward, saved.grid, dy.dtype, &addresses)?;
        self.norm_backward_by(saved, dy, &plan)
    }

    /// The same by a plan for this pass, shape, dtype and alignment.
    pub fn norm_backward_by(
        &self,
        saved: &NormSaved<DeviceMemory>,
        dy: &Tensor<DeviceMemory>,
        plan: &CudaPlan,
    ) -> Result<NormGrads<DeviceMemory>> {
        let spec = &saved.spec;
        let dx = self.empty(&saved.x.shape, saved.x.dtype)?;
        let scratch = Scratch::new(self, plan, spec, saved.scale.is_some())?;
        let like =
            |x: &Option<Tensor<DeviceMemory>>| x.as_ref().map(|x| self.empty(&x.shape, x.dtype)).transpose();
        let grads = NormGrads {
            dx,
            weight: like(&saved.weight)?,
            bias: like(&saved.bias)?,
            scale: like(&saved.scale)?,
        };
        let params = NormParams {
            x: address(&saved.x),
            dy: address(dy),
            out: address(&grads.dx),
            weight: address_of(saved.weight.as_ref()),
            bias: address_of(saved.bias.as_ref()),
            scale: address_of(saved.scale.as_ref()),
            statistics: address(&saved.statistics),
            weight_out: address_of(grads.weight.as_ref()),
            bias_out: address_of(grads.bias.as_ref()),
            scale_out: address_of(grads.scale.as_ref()),
            ..scratch.addresses(NormParams::new(spec, plan, saved.batch_statistics))
        };
        self.launch_all(&norm_launches(plan, &params))?;
        Ok(grads)
    }
}
