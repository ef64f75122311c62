//! [`Cuda`] as a backend: every entry point by name, the work in the files beside this one.

use spikenorm_core::kit::{
    AdamStep, AvgPoolSaved, Conv2dForward, Conv2dSaved, CrossEntropyOutput, Frames, LayerGrads, LayerOutput,
    LinearForward, LinearSaved, LogitsGrid, MaxPoolSaved, NeuronForward, NeuronGrads, NeuronOutput,
    NeuronSaved, PoolSpec, SgdStep,
};
use spikenorm_core::norm::{NormForward, NormGrads, NormOutput, NormSaved};
use spikenorm_core::{
    Backend, DType, NeuNormForward, NeuNormGrads, NeuNormOutput, NeuNormSaved, Result, Tensor,
};

use super::{Cuda, DeviceMemory};

type CudaTensor = Tensor<DeviceMemory>;

impl Backend for Cuda {
    type Memory = DeviceMemory;

    fn empty(&self, shape: &[usize], dtype: DType) -> Result<CudaTensor> {
        self.empty(shape, dtype)
    }

    fn upload(&self, bytes: &[u8], shape: &[usize], dtype: DType) -> Result<CudaTensor> {
        self.upload(bytes, shape, dtype)
    }

    fn read<R>(&self, x: &CudaTensor, with: impl FnOnce(&[u8]) -> R) -> Result<R> {
        self.download(x).map(|bytes| with(&bytes))
    }

    fn expect_readable(&self, _what: &str, _x: &CudaTensor) -> Result<()> {
        Ok(())
    }

    fn expect_writable(&self, _what: &str, _x: &CudaTensor) -> Result<()> {
        Ok(())
    }

    fn shares_memory(&self, a: &CudaTensor, b: &CudaTensor) -> bool {
        // By address: memory of another owner may lie in a block of this library's.
        let end = |x: &CudaTensor| x.memory.address() + x.memory.bytes() as u64;
        a.memory.address() < end(b) && b.memory.address() < end(a)
    }

    fn fill(&self, x: &CudaTensor, value: f64) -> Result<()> {
        self.fill(x, value)
    }

    fn copy(&self, target: &CudaTensor, source: &CudaTensor) -> Result<()> {
        self.copy(target, source)
    }

    fn accumulate(&self, target: &CudaTensor, source: &CudaTensor) -> Result<()> {
        self.accumulate(target, source)
    }

    fn norm_forward(&self, call: &NormForward<'_, DeviceMemory>) -> Result<NormOutput<DeviceMemory>> {
        self.norm_forward(call)
    }

    fn norm_backward(
        &self,
        saved: &NormSaved<DeviceMemory>,
        dy: &CudaTensor,
    ) -> Result<NormGrads<DeviceMemory>> {
        self.norm_backward(saved, dy)
    }

    fn neu_norm_forward(
        &self,
        call: &NeuNormForward<'_, DeviceMemory>,
    ) -> Result<NeuNormOutput<DeviceMemory>> {
        self.neu_norm_forward(call)
    }

    fn neu_norm_backward(
        &self,
        saved: &NeuNormSaved<DeviceMemory>,
        dy: &CudaTensor,
        carry: Option<&CudaTensor>,
    ) -> Result<NeuNormGrads<DeviceMemory>> {
        self.neu_norm_backward(saved, dy, carry)
    }

    fn add(&self, a: &CudaTensor, b: &CudaTensor) -> Result<CudaTensor> {
        self.add(a, b)
    }

    fn conv2d_forward(
        &self,
        call: &Conv2dForward<'_, DeviceMemory>,
    ) -> Result<LayerOutput<DeviceMemory, Conv2dSaved<DeviceMemory>>> {
        self.conv2d_forward(call)
    }

    fn conv2d_backward(
        &self,
        saved: &Conv2dSaved<DeviceMemory>,
        dy: &CudaTensor,
        needs_dx: bool,
    ) -> Result<LayerGrads<DeviceMemory>> {
        self.conv2d_backward(saved, dy, needs_dx)
    }

    fn linear_forward(
        &self,
        call: &LinearForward<'_, DeviceMemory>,
    ) -> Result<LayerOutput<DeviceMemory, LinearSaved<DeviceMemory>>> {
        self.linear_forward(call)
    }

    fn linear_backward(
        &self,
        saved: &LinearSaved<DeviceMemory>,
        dy: &CudaTensor,
        needs_dx: bool,
    ) -> Result<LayerGrads<DeviceMemory>> {
        self.linear_backward(saved, dy, needs_dx)
    }

    fn avg_pool2d_forward(&self, spec: &PoolSpec, frames: Frames, x: &CudaTensor) -> Result<CudaTensor> {
        self.avg_pool2d_forward(spec, frames, x)
    }

    fn avg_pool2d_backward(&self, saved: &AvgPoolSaved, dy: &CudaTensor) -> Result<CudaTensor> {
        self.avg_pool2d_backward(saved, dy)
    }

    fn max_pool2d_forward(
        &self,
        spec: &PoolSpec,
        frames: Frames,
        x: &CudaTensor,
        record: bool,
    ) -> Result<LayerOutput<DeviceMemory, MaxPoolSaved<DeviceMemory>>> {
        self.max_pool2d_forward(spec, frames, x, record)
    }

    fn max_pool2d_backward(&self, saved: &MaxPoolSaved<DeviceMemory>, dy: &CudaTensor) -> Result<CudaTensor> {
        self.max_pool2d_backward(saved, dy)
    }

    fn neuron_forward(&self, call: &NeuronForward<'_, DeviceMemory>) -> Result<NeuronOutput<DeviceMemory>> {
        self.neuron_forward(call)
    }

    fn neuron_backward(
        &self,
        saved: &NeuronSaved<DeviceMemory>,
        dy: &CudaTensor,
        carry: Option<&CudaTensor>,
    ) -> Result<NeuronGrads<DeviceMemory>> {
        self.neuron_backward(saved, dy, carry)
    }

    fn cross_entropy(
        &self,
        grid: LogitsGrid,
        logits: &CudaTensor,
        labels: &CudaTensor,
    ) -> Result<CrossEntropyOutput<DeviceMemory>> {
        self.cross_entropy(grid, logits, labels)
    }

    fn sgd_step(&self, call: &SgdStep<'_, DeviceMemory>) -> Result<()> {
        self.sgd_step(call)
    }

    fn adam_step(&self, call: &AdamStep<'_, DeviceMemory>) -> Result<()> {
        self.adam_step(call)
    }
}
