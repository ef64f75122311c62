//! Half types by way of float32: tensors are cast to it and results back, rounded once as they would be otherwise.
//!
//! For the training kit, whose passes over half types would be a tenth of the binary; and for the norms, which have such
//! passes, on processors that only have the baseline of x86-64, made before 2013.

mod kit;
mod norms;
#[cfg(test)]
mod tests;

pub use kit::{
    avg_pool2d_backward, avg_pool2d_forward, conv2d_backward, conv2d_forward, linear_backward,
    linear_forward, max_pool2d_backward, max_pool2d_forward, neuron_backward, neuron_forward,
};
pub use norms::{neu_norm_backward, neu_norm_forward, norm_backward, norm_forward};

use spikenorm_core::{DType, Result};

use crate::backend::{Cpu, CpuTensor};
use crate::simd::beyond_baseline;
use crate::tensor_ops::copy_into;

pub fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// Whether the norms of a dtype go this way, too.
pub fn is_slow(dtype: DType) -> bool {
    is_half(dtype) && !beyond_baseline()
}

fn cast(source: &CpuTensor, dtype: DType) -> Result<CpuTensor> {
    let target = Cpu.allocate(&source.shape, dtype)?;
    copy_into(&target, source)?;
    Ok(target)
}

fn wide(source: &CpuTensor) -> Result<CpuTensor> {
    cast(source, DType::F32)
}
