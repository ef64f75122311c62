//! The training kit. What is saved for backward stays of the half type.

use spikenorm_core::kit::{
    AvgPoolSaved, Conv2dForward, Conv2dSaved, Frames, LayerGrads, LayerOutput, LinearForward, LinearSaved,
    MaxPoolSaved, NeuronForward, NeuronGrads, NeuronOutput, NeuronSaved, PoolSpec,
};
use spikenorm_core::{Backend, DType, Result};

use super::{cast, wide};
use crate::HostMemory;
use crate::backend::{Cpu, CpuTensor};

fn narrow_grads(grads: LayerGrads<HostMemory>, dtype: DType) -> Result<LayerGrads<HostMemory>> {
    Ok(LayerGrads { dx: grads.dx.map(|dx| cast(&dx, dtype)).transpose()?, ..grads })
}

pub fn conv2d_forward(
    call: &Conv2dForward<'_, HostMemory>,
) -> Result<LayerOutput<HostMemory, Conv2dSaved<HostMemory>>> {
    let mut output = Cpu.conv2d_forward(&Conv2dForward { x: &wide(call.x)?, ..*call })?;
    if let Some(saved) = &mut output.saved {
        saved.x = call.x.clone();
    }
    Ok(LayerOutput { y: cast(&output.y, call.x.dtype)?, ..output })
}

pub fn conv2d_backward(
    saved: &Conv2dSaved<HostMemory>,
    dy: &CpuTensor,
    needs_dx: bool,
) -> Result<LayerGrads<HostMemory>> {
    let wide_saved = Conv2dSaved {
        spec: saved.spec.clone(),
        frames: saved.frames,
        x: wide(&saved.x)?,
        weight: saved.weight.clone(),
        has_bias: saved.has_bias,
    };
    narrow_grads(Cpu.conv2d_backward(&wide_saved, &wide(dy)?, needs_dx)?, dy.dtype)
}

pub fn linear_forward(
    call: &LinearForward<'_, HostMemory>,
) -> Result<LayerOutput<HostMemory, LinearSaved<HostMemory>>> {
    let mut output = Cpu.linear_forward(&LinearForward { x: &wide(call.x)?, ..*call })?;
    if let Some(saved) = &mut output.saved {
        saved.x = call.x.clone();
    }
    Ok(LayerOutput { y: cast(&output.y, call.x.dtype)?, ..output })
}

pub fn linear_backward(
    saved: &LinearSaved<HostMemory>,
    dy: &CpuTensor,
    needs_dx: bool,
) -> Result<LayerGrads<HostMemory>> {
    let wide_saved = LinearSaved {
        spec: saved.spec.clone(),
        rows: saved.rows,
        x: wide(&saved.x)?,
        weight: saved.weight.clone(),
        has_bias: saved.has_bias,
    };
    narrow_grads(Cpu.linear_backward(&wide_saved, &wide(dy)?, needs_dx)?, dy.dtype)
}

pub fn avg_pool2d_forward(spec: &PoolSpec, frames: Frames, x: &CpuTensor) -> Result<CpuTensor> {
    cast(&Cpu.avg_pool2d_forward(spec, frames, &wide(x)?)?, x.dtype)
}

pub fn avg_pool2d_backward(saved: &AvgPoolSaved, dy: &CpuTensor) -> Result<CpuTensor> {
    cast(&Cpu.avg_pool2d_backward(saved, &wide(dy)?)?, dy.dtype)
}

pub fn max_pool2d_forward(
    spec: &PoolSpec,
    frames: Frames,
    x: &CpuTensor,
    record: bool,
) -> Result<LayerOutput<HostMemory, MaxPoolSaved<HostMemory>>> {
    let mut output = Cpu.max_pool2d_forward(spec, frames, &wide(x)?, record)?;
    if let Some(saved) = &mut output.saved {
        saved.dtype = x.dtype;
    }
    Ok(LayerOutput { y: cast(&output.y, x.dtype)?, ..output })
}

pub fn max_pool2d_backward(saved: &MaxPoolSaved<HostMemory>, dy: &CpuTensor) -> Result<CpuTensor> {
    cast(&Cpu.max_pool2d_backward(saved, &wide(dy)?)?, dy.dtype)
}

pub fn neuron_forward(call: &NeuronForward<'_, HostMemory>) -> Result<NeuronOutput<HostMemory>> {
    let mut output = Cpu.neuron_forward(&NeuronForward { x: &wide(call.x)?, ..*call })?;
    if let Some(saved) = &mut output.saved {
        saved.input_dtype = call.x.dtype;
    }
    Ok(NeuronOutput { spikes: cast(&output.spikes, call.x.dtype)?, ..output })
}

pub fn neuron_backward(
    saved: &NeuronSaved<HostMemory>,
    dy: &CpuTensor,
    carry: Option<&CpuTensor>,
) -> Result<NeuronGrads<HostMemory>> {
    let grads = Cpu.neuron_backward(saved, &wide(dy)?, carry)?;
    Ok(NeuronGrads { dx: cast(&grads.dx, dy.dtype)?, ..grads })
}
