//! The norms, where [`super::is_slow`].

use spikenorm_core::norm::{NormForward, NormGrads, NormOutput, NormSaved};
use spikenorm_core::{Backend, NeuNormForward, NeuNormGrads, NeuNormOutput, NeuNormSaved, Result};

use super::{cast, wide};
use crate::HostMemory;
use crate::backend::{Cpu, CpuTensor};
use crate::tensor_ops::copy_into;

pub fn norm_forward(call: &NormForward<'_, HostMemory>) -> Result<NormOutput<HostMemory>> {
    // What may fail comes before running statistics move.
    let y = Cpu.allocate(&call.x.shape, call.x.dtype)?;
    let mut output = Cpu.norm_forward(&NormForward { x: &wide(call.x)?, ..*call })?;
    copy_into(&y, &output.y)?;
    if let Some(saved) = &mut output.saved {
        saved.x = call.x.clone();
    }
    Ok(NormOutput { y, ..output })
}

pub fn norm_backward(saved: &NormSaved<HostMemory>, dy: &CpuTensor) -> Result<NormGrads<HostMemory>> {
    let saved = NormSaved {
        spec: saved.spec.clone(),
        grid: saved.grid,
        x: wide(&saved.x)?,
        statistics: saved.statistics.clone(),
        batch_statistics: saved.batch_statistics,
        weight: saved.weight.clone(),
        bias: saved.bias.clone(),
        scale: saved.scale.clone(),
    };
    let grads = Cpu.norm_backward(&saved, &wide(dy)?)?;
    Ok(NormGrads { dx: cast(&grads.dx, dy.dtype)?, ..grads })
}

pub fn neu_norm_forward(call: &NeuNormForward<'_, HostMemory>) -> Result<NeuNormOutput<HostMemory>> {
    let mut output = Cpu.neu_norm_forward(&NeuNormForward { x: &wide(call.x)?, ..*call })?;
    if let Some(saved) = &mut output.saved {
        saved.input_dtype = call.x.dtype;
    }
    Ok(NeuNormOutput { y: cast(&output.y, call.x.dtype)?, ..output })
}

pub fn neu_norm_backward(
    saved: &NeuNormSaved<HostMemory>,
    dy: &CpuTensor,
    carry: Option<&CpuTensor>,
) -> Result<NeuNormGrads<HostMemory>> {
    let grads = Cpu.neu_norm_backward(saved, &wide(dy)?, carry)?;
    Ok(NeuNormGrads { dx: cast(&grads.dx, dy.dtype)?, ..grads })
}
