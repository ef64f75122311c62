//! The training kit: what a spiking net needs around the normalisation layers, with the semantics of
//! PyTorch and of SpikingJelly's `activation_based`.
//!
//! A file holds one family: its specification, which checks arguments and shapes, and the plain structs
//! that carry a call to a backend and its results back. What backward needs is saved by forward; small
//! tensors and weights among it are copies, so that an optimiser may step between the two.

mod conv;
mod linear;
mod loss;
mod neuron;
mod optim;
mod pool;
mod window;

pub use conv::{Conv2dForward, Conv2dSaved, Conv2dSpec};
pub use linear::{LinearForward, LinearSaved, LinearSpec};
pub use loss::{CrossEntropyOutput, LogitsGrid};
pub use neuron::{
    Charge, NeuronForward, NeuronGrads, NeuronGrid, NeuronOutput, NeuronSaved, NeuronSpec, Surrogate,
};
pub use optim::{AdamSpec, AdamStep, SgdSpec, SgdStep};
pub use pool::{AvgPoolSaved, MaxPoolSaved, PoolSpec};
pub use window::{Frames, Window};

use crate::Tensor;

/// What a layer with weights gives back: `saved` where a backward may follow.
pub struct LayerOutput<M, S> {
    pub y: Tensor<M>,
    pub saved: Option<S>,
}

/// Gradients of one backward pass of a layer with weights, fresh; the caller accumulates.
pub struct LayerGrads<M> {
    /// Absent where the caller said that it needs none.
    pub dx: Option<Tensor<M>>,
    pub weight: Tensor<M>,
    pub bias: Option<Tensor<M>>,
}
