//! [`Cpu`]: the backend's entry points, which choose the element type and hand over.

use std::sync::Arc;

use spikenorm_core::kit::{
    AdamStep, AvgPoolSaved, Conv2dForward, Conv2dSaved, CrossEntropyOutput, Frames, LayerGrads, LayerOutput,
    LinearForward, LinearSaved, LogitsGrid, MaxPoolSaved, NeuronForward, NeuronGrads, NeuronOutput,
    NeuronSaved, PoolSpec, SgdStep,
};
use spikenorm_core::norm::{NormForward, NormGrads, NormOutput, NormSaved};
use spikenorm_core::{
    Backend, DType, NeuNormForward, NeuNormGrads, NeuNormOutput, NeuNormSaved, Result, Tensor, element_count,
};

use crate::element::{with_fast_float, with_real};
use crate::through_float32::{is_half, is_slow};
use crate::{HostMemory, kit, neu_norm, norm, tensor_ops, through_float32};

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

    fn read<R>(&self, x: &CpuTensor, with: impl FnOnce(&[u8]) -> R) -> Result<R> {
        let size = x.dtype.size();
        Ok(with(x.memory.read()?.slice::<u8>(x.offset * size, x.len() * size)))
    }

    fn expect_readable(&self, what: &str, x: &CpuTensor) -> Result<()> {
        x.memory.read().map(drop).map_err(|error| error.within(what))
    }

    fn expect_writable(&self, what: &str, x: &CpuTensor) -> Result<()> {
        x.memory.write().map(drop).map_err(|error| error.within(what))
    }

    fn shares_memory(&self, a: &CpuTensor, b: &CpuTensor) -> bool {
        Arc::ptr_eq(&a.memory, &b.memory)
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
        if is_slow(call.x.dtype) {
            return through_float32::norm_forward(call);
        }
        with_fast_float!(call.x.dtype, E => norm::forward::<E>(call))
    }

    fn norm_backward(&self, saved: &NormSaved<HostMemory>, dy: &CpuTensor) -> Result<NormGrads<HostMemory>> {
        if is_slow(dy.dtype) {
            return through_float32::norm_backward(saved, dy);
        }
        with_fast_float!(dy.dtype, E => norm::backward::<E>(saved, dy))
    }

    fn neu_norm_forward(&self, call: &NeuNormForward<'_, HostMemory>) -> Result<NeuNormOutput<HostMemory>> {
        if is_slow(call.x.dtype) {
            return through_float32::neu_norm_forward(call);
        }
        with_fast_float!(call.x.dtype, E => neu_norm::forward::<E>(call))
    }

    fn neu_norm_backward(
        &self,
        saved: &NeuNormSaved<HostMemory>,
        dy: &CpuTensor,
        carry: Option<&CpuTensor>,
    ) -> Result<NeuNormGrads<HostMemory>> {
        if is_slow(dy.dtype) {
            return through_float32::neu_norm_backward(saved, dy, carry);
        }
        with_fast_float!(dy.dtype, E => neu_norm::backward::<E>(saved, dy, carry))
    }

    fn add(&self, a: &CpuTensor, b: &CpuTensor) -> Result<CpuTensor> {
        tensor_ops::add(a, b)
    }

    fn conv2d_forward(
        &self,
        call: &Conv2dForward<'_, HostMemory>,
    ) -> Result<LayerOutput<HostMemory, Conv2dSaved<HostMemory>>> {
        if is_half(call.x.dtype) {
            return through_float32::conv2d_forward(call);
        }
        with_real!(call.x.dtype, A => kit::conv::forward::<A>(call))
    }

    fn conv2d_backward(
        &self,
        saved: &Conv2dSaved<HostMemory>,
        dy: &CpuTensor,
        needs_dx: bool,
    ) -> Result<LayerGrads<HostMemory>> {
        if is_half(dy.dtype) {
            return through_float32::conv2d_backward(saved, dy, needs_dx);
        }
        with_real!(dy.dtype, A => kit::conv::backward::<A>(saved, dy, needs_dx))
    }

    fn linear_forward(
        &self,
        call: &LinearForward<'_, HostMemory>,
    ) -> Result<LayerOutput<HostMemory, LinearSaved<HostMemory>>> {
        if is_half(call.x.dtype) {
            return through_float32::linear_forward(call);
        }
        with_real!(call.x.dtype, A => kit::linear::forward::<A>(call))
    }

    fn linear_backward(
        &self,
        saved: &LinearSaved<HostMemory>,
        dy: &CpuTensor,
        needs_dx: bool,
    ) -> Result<LayerGrads<HostMemory>> {
        if is_half(dy.dtype) {
            return through_float32::linear_backward(saved, dy, needs_dx);
        }
        with_real!(dy.dtype, A => kit::linear::backward::<A>(saved, dy, needs_dx))
    }

    fn avg_pool2d_forward(&self, spec: &PoolSpec, frames: Frames, x: &CpuTensor) -> Result<CpuTensor> {
        if is_half(x.dtype) {
            return through_float32::avg_pool2d_forward(spec, frames, x);
        }
        with_real!(x.dtype, A => kit::pool::average::<A>(spec, frames, x))
    }

    fn avg_pool2d_backward(&self, saved: &AvgPoolSaved, dy: &CpuTensor) -> Result<CpuTensor> {
        if is_half(dy.dtype) {
            return through_float32::avg_pool2d_backward(saved, dy);
        }
        with_real!(dy.dtype, A => kit::pool::average_backward::<A>(saved, dy))
    }

    fn max_pool2d_forward(
        &self,
        spec: &PoolSpec,
        frames: Frames,
        x: &CpuTensor,
        record: bool,
    ) -> Result<LayerOutput<HostMemory, MaxPoolSaved<HostMemory>>> {
        if is_half(x.dtype) {
            return through_float32::max_pool2d_forward(spec, frames, x, record);
        }
        with_real!(x.dtype, A => kit::pool::maximum::<A>(spec, frames, x, record))
    }

    fn max_pool2d_backward(&self, saved: &MaxPoolSaved<HostMemory>, dy: &CpuTensor) -> Result<CpuTensor> {
        if is_half(dy.dtype) {
            return through_float32::max_pool2d_backward(saved, dy);
        }
        with_real!(dy.dtype, A => kit::pool::maximum_backward::<A>(saved, dy))
    }

    fn neuron_forward(&self, call: &NeuronForward<'_, HostMemory>) -> Result<NeuronOutput<HostMemory>> {
        if is_half(call.x.dtype) {
            return through_float32::neuron_forward(call);
        }
        with_real!(call.x.dtype, A => kit::neuron::forward::<A>(call))
    }

    fn neuron_backward(
        &self,
        saved: &NeuronSaved<HostMemory>,
        dy: &CpuTensor,
        carry: Option<&CpuTensor>,
    ) -> Result<NeuronGrads<HostMemory>> {
        if is_half(dy.dtype) {
            return through_float32::neuron_backward(saved, dy, carry);
        }
        with_real!(dy.dtype, A => kit::neuron::backward::<A>(saved, dy, carry))
    }

    fn cross_entropy(
        &self,
        grid: LogitsGrid,
        logits: &CpuTensor,
        labels: &CpuTensor,
    ) -> Result<CrossEntropyOutput<HostMemory>> {
        kit::loss::cross_entropy(grid, logits, labels)
    }

    fn sgd_step(&self, call: &SgdStep<'_, HostMemory>) -> Result<()> {
        with_real!(call.parameter.dtype, A => kit::optim::sgd::<A>(call))
    }

    fn adam_step(&self, call: &AdamStep<'_, HostMemory>) -> Result<()> {
        with_real!(call.parameter.dtype, A => kit::optim::adam::<A>(call))
    }
}
