//! A grid without values, however many steps it has: nothing to walk.

use spikenorm_core::norm::{NormForward, NormGrads, NormOutput, NormSaved, RowStatistics, Statistics};
use spikenorm_core::{DType, Result};

use super::small::save;
use crate::HostMemory;
use crate::backend::{Cpu, CpuTensor};
use crate::tensor_ops::{fill, read_f64};

pub fn forward(call: &NormForward<'_, HostMemory>, dtype: DType) -> Result<NormOutput<HostMemory>> {
    let statistics = match &call.statistics {
        Statistics::Running { mean, var } => {
            RowStatistics { mean: read_f64(mean)?, low: Vec::new(), var: read_f64(var)? }
        }
        // Without values there is no mean.
        Statistics::Batch(_) => {
            call.spec.check_batch_statistics(call.grid)?;
            RowStatistics { mean: Vec::new(), low: Vec::new(), var: Vec::new() }
        }
    };
    let y = Cpu.allocate(&call.x.shape, dtype)?;
    Ok(NormOutput { y, saved: call.record.then(|| save(call, &statistics)).transpose()? })
}

/// Gradients of nothing are 0.
pub fn backward(saved: &NormSaved<HostMemory>, dy: &CpuTensor) -> Result<NormGrads<HostMemory>> {
    let zeros = |parameter: &Option<CpuTensor>| -> Result<Option<CpuTensor>> {
        let Some(parameter) = parameter else { return Ok(None) };
        let grad = Cpu.allocate(&parameter.shape, parameter.dtype)?;
        fill(&grad, 0.0)?;
        Ok(Some(grad))
    };
    Ok(NormGrads {
        dx: Cpu.allocate(&dy.shape, dy.dtype)?,
        weight: zeros(&saved.weight)?,
        bias: zeros(&saved.bias)?,
        scale: zeros(&saved.scale)?,
    })
}
