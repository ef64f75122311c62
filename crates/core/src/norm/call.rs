//! What a backend is handed and what it gives back. Shapes and dtypes are checked before.

use super::NormSpec;
use crate::{Grid, Tensor};

/// One forward pass. `weight` and `bias` are `[rows, C]` (the rows of this call only, where they are
/// per step), `scale` is `[T]`.
pub struct NormForward<'a, M> {
    pub spec: &'a NormSpec,
    pub grid: Grid,
    pub x: &'a Tensor<M>,
    pub weight: Option<&'a Tensor<M>>,
    pub bias: Option<&'a Tensor<M>>,
    pub scale: Option<&'a Tensor<M>>,
    pub statistics: Statistics<'a, M>,
    /// Whether a backward may follow.
    pub record: bool,
}

pub enum Statistics<'a, M> {
    /// Of the input itself; running statistics are moved when there is an update.
    Batch(Option<RunningUpdate<'a, M>>),
    /// The running ones, `[rows, C]` each.
    Running { mean: &'a Tensor<M>, var: &'a Tensor<M> },
}

// Derived, they would ask it of the memory.
impl<M> Copy for Statistics<'_, M> {}

impl<M> Clone for Statistics<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

/// `running = (1 − f)·running + f·batch`, variance unbiased, with f = momentum, or 1/num_batches_tracked. The
/// counters move by one, before they are used.
pub struct RunningUpdate<'a, M> {
    pub mean: &'a Tensor<M>,
    pub var: &'a Tensor<M>,
    /// num_batches_tracked, int64, one per statistics row.
    pub counters: &'a Tensor<M>,
    /// `None`: a cumulative average.
    pub momentum: Option<f64>,
}

impl<M> Copy for RunningUpdate<'_, M> {}

impl<M> Clone for RunningUpdate<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

pub struct NormOutput<M> {
    pub y: Tensor<M>,
    pub saved: Option<NormSaved<M>>,
}

/// What backward needs: the input (shared, not copied) and small tensors. `weight`, `bias` and `scale`
/// are copies, so that an optimiser may step between forward and backward.
pub struct NormSaved<M> {
    pub spec: NormSpec,
    pub grid: Grid,
    pub x: Tensor<M>,
    /// Mean and 1/√(v + eps) of every row and channel, laid out as the backend likes.
    pub statistics: Tensor<M>,
    pub batch_statistics: bool,
    pub weight: Option<Tensor<M>>,
    pub bias: Option<Tensor<M>>,
    pub scale: Option<Tensor<M>>,
}

/// Gradients of one backward pass, fresh; the caller accumulates.
pub struct NormGrads<M> {
    pub dx: Tensor<M>,
    /// `[rows, C]`.
    pub weight: Option<Tensor<M>>,
    /// `[rows, C]`.
    pub bias: Option<Tensor<M>>,
    /// `[T]`.
    pub scale: Option<Tensor<M>>,
}
