//! [`Cpu`]: the backend's entry points, which choose the element type and hand over.

use spikenorm_core::norm::{NormForward, NormGrads, NormOutput, NormSaved};
use spikenorm_core::{
    Backend, DType, NeuNormForward, NeuNormGrads, NeuNormOutput, NeuNormSaved, Result, Tensor, element_count,
};

use crate::element::with_float;
use crate::{HostMemory, neu_norm, norm, tensor_ops};

pub type CpuTensor = Tensor<HostMemory>;

/// The CPU. It has no state of its own: threads and memory pool belong to the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu;

impl Cpu {
    /// New tensor with unspecified values.
    pub fn allocate(self, shape: &[usize], dtype: DType) -> Result<CpuTensor> {
        let bytes = element_count(shape)? * dtype.size();
        Ok(CpuTensor::new(HostMemory::take(bytes)?, shape, dtype))
    }
}

impl Backend for Cpu {
    type Memory = HostMemory;

    fn empty(&self, shape: &[usize], dtype: DType) -> Result<CpuTensor> {
        self.allocate(shape, dtype)
    }

    fn upload(&self, bytes: &[u8], shape: &[usize], dtype: DType) -> Result<CpuTensor> {
        let tensor = self.allocate(shape, dtype)?;
        tensor.memory.write()?.slice::<u8>(0, bytes.len()).copy_from_slice(bytes);
        Ok(tensor)
    }

    fn download(&self, x: &CpuTensor) -> Result<Vec<u8>> {
        let size = x.dtype.size();
        Ok(x.memory.read()?.slice::<u8>(x.offset * size, x.len() * size).to_vec())
    }

    fn fill(&self, x: &CpuTensor, value: f64) -> Result<()> {
        tensor_ops::fill(x, value)
    }

    fn copy(&self, target: &CpuTensor, source: &CpuTensor) -> Result<()> {
        tensor_ops::copy_into(target, source)
    }

    fn accumulate(&self, target: &CpuTensor, source: &CpuTensor) -> Result<()> {
        tensor_ops::accumulate(target, source)
    }

    fn norm_forward(&self, call: &NormForward<'_, HostMemory>) -> Result<NormOutput<HostMemory>> {
        with_float!(call.x.dtype, E => norm::forward::<E>(call))
    }

    fn norm_backward(&self, saved: &NormSaved<HostMemory>, dy: &CpuTensor) -> Result<NormGrads<HostMemory>> {
        with_float!(dy.dtype, E => norm::backward::<E>(saved, dy))
    }

    fn neu_norm_forward(&self, call: &NeuNormForward<'_, HostMemory>) -> Result<NeuNormOutput<HostMemory>> {
        with_float!(call.x.dtype, E => neu_norm::forward::<E>(call))
    }

    fn neu_norm_backward(
        &self,
        saved: &NeuNormSaved<HostMemory>,
        dy: &CpuTensor,
        carry: Option<&CpuTensor>,
    ) -> Result<NeuNormGrads<HostMemory>> {
        with_float!(dy.dtype, E => neu_norm::backward::<E>(saved, dy, carry))
    }
}
