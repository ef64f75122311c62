//! The interface of a device, on one screen.
//!
//! A backend computes; it is not where shapes are checked (the specs do that), where modules keep
//! state or tapes (TypeScript does), nor where handles live (the N-API face does). Every call gets
//! checked arguments, returns fresh tensors and changes nothing when it fails, except where the
//! comment says what it moves in place.

use crate::kit::{
    AdamStep, AvgPoolSaved, Conv2dForward, Conv2dSaved, CrossEntropyOutput, Frames, LayerGrads, LayerOutput,
    LinearForward, LinearSaved, LogitsGrid, MaxPoolSaved, NeuronForward, NeuronGrads, NeuronOutput,
    NeuronSaved, PoolSpec, SgdStep,
};
use crate::norm::{NormForward, NormGrads, NormOutput, NormSaved};
use crate::{DType, NeuNormForward, NeuNormGrads, NeuNormOutput, NeuNormSaved, Result, Tensor};

pub trait Backend {
    /// A block of this device's memory, mutable behind a shared reference.
    type Memory: Send + Sync;

    /// New tensor with unspecified values.
    fn empty(&self, shape: &[usize], dtype: DType) -> Result<Tensor<Self::Memory>>;
    /// New tensor from the host's bytes (length checked by the caller).
    fn upload(&self, bytes: &[u8], shape: &[usize], dtype: DType) -> Result<Tensor<Self::Memory>>;
    /// Lends the values' bytes to `with`, contiguous.
    fn read<R>(&self, x: &Tensor<Self::Memory>, with: impl FnOnce(&[u8]) -> R) -> Result<R>;
    /// Refuses memory that can no longer be read, before a call that changes several tensors begins.
    fn expect_readable(&self, what: &str, x: &Tensor<Self::Memory>) -> Result<()>;
    /// The same for memory that cannot be written to.
    fn expect_writable(&self, what: &str, x: &Tensor<Self::Memory>) -> Result<()>;
    /// Whether two tensors lie in the same block of memory.
    fn shares_memory(&self, a: &Tensor<Self::Memory>, b: &Tensor<Self::Memory>) -> bool;
    fn fill(&self, x: &Tensor<Self::Memory>, value: f64) -> Result<()>;
    /// `target = source`, rounded once where dtypes differ. In place.
    fn copy(&self, target: &Tensor<Self::Memory>, source: &Tensor<Self::Memory>) -> Result<()>;
    /// `target += source`, equal dtypes. In place.
    fn accumulate(&self, target: &Tensor<Self::Memory>, source: &Tensor<Self::Memory>) -> Result<()>;

    /// Moves the running statistics and their counters in place, once everything else has succeeded.
    fn norm_forward(&self, call: &NormForward<'_, Self::Memory>) -> Result<NormOutput<Self::Memory>>;
    fn norm_backward(
        &self,
        saved: &NormSaved<Self::Memory>,
        dy: &Tensor<Self::Memory>,
    ) -> Result<NormGrads<Self::Memory>>;

    fn neu_norm_forward(
        &self,
        call: &NeuNormForward<'_, Self::Memory>,
    ) -> Result<NeuNormOutput<Self::Memory>>;
    /// `carry`: gradient of the state after the last step, from a later call.
    fn neu_norm_backward(
        &self,
        saved: &NeuNormSaved<Self::Memory>,
        dy: &Tensor<Self::Memory>,
        carry: Option<&Tensor<Self::Memory>>,
    ) -> Result<NeuNormGrads<Self::Memory>>;

    // Training kit

    /// `a + b`, equal shapes and dtypes.
    fn add(&self, a: &Tensor<Self::Memory>, b: &Tensor<Self::Memory>) -> Result<Tensor<Self::Memory>>;

    fn conv2d_forward(
        &self,
        call: &Conv2dForward<'_, Self::Memory>,
    ) -> Result<LayerOutput<Self::Memory, Conv2dSaved<Self::Memory>>>;
    /// Skips dx unless `needs_dx`.
    fn conv2d_backward(
        &self,
        saved: &Conv2dSaved<Self::Memory>,
        dy: &Tensor<Self::Memory>,
        needs_dx: bool,
    ) -> Result<LayerGrads<Self::Memory>>;

    fn linear_forward(
        &self,
        call: &LinearForward<'_, Self::Memory>,
    ) -> Result<LayerOutput<Self::Memory, LinearSaved<Self::Memory>>>;
    /// Skips dx unless `needs_dx`.
    fn linear_backward(
        &self,
        saved: &LinearSaved<Self::Memory>,
        dy: &Tensor<Self::Memory>,
        needs_dx: bool,
    ) -> Result<LayerGrads<Self::Memory>>;

    fn avg_pool2d_forward(
        &self,
        spec: &PoolSpec,
        frames: Frames,
        x: &Tensor<Self::Memory>,
    ) -> Result<Tensor<Self::Memory>>;
    fn avg_pool2d_backward(
        &self,
        saved: &AvgPoolSaved,
        dy: &Tensor<Self::Memory>,
    ) -> Result<Tensor<Self::Memory>>;

    /// Saves the place of each maximum if `record`.
    fn max_pool2d_forward(
        &self,
        spec: &PoolSpec,
        frames: Frames,
        x: &Tensor<Self::Memory>,
        record: bool,
    ) -> Result<LayerOutput<Self::Memory, MaxPoolSaved<Self::Memory>>>;
    fn max_pool2d_backward(
        &self,
        saved: &MaxPoolSaved<Self::Memory>,
        dy: &Tensor<Self::Memory>,
    ) -> Result<Tensor<Self::Memory>>;

    fn neuron_forward(&self, call: &NeuronForward<'_, Self::Memory>) -> Result<NeuronOutput<Self::Memory>>;
    /// `carry`: gradient of the voltage after the last step, from a later call.
    fn neuron_backward(
        &self,
        saved: &NeuronSaved<Self::Memory>,
        dy: &Tensor<Self::Memory>,
        carry: Option<&Tensor<Self::Memory>>,
    ) -> Result<NeuronGrads<Self::Memory>>;

    /// Refuses labels outside the classes, or reports the first one, where finding it would make the host wait.
    fn cross_entropy(
        &self,
        grid: LogitsGrid,
        logits: &Tensor<Self::Memory>,
        labels: &Tensor<Self::Memory>,
    ) -> Result<CrossEntropyOutput<Self::Memory>>;

    /// Moves the parameter and its momentum in place.
    fn sgd_step(&self, call: &SgdStep<'_, Self::Memory>) -> Result<()>;
    /// Moves the parameter, its moments and its count of steps in place.
    fn adam_step(&self, call: &AdamStep<'_, Self::Memory>) -> Result<()>;
}
