//! The kernels on the host: compiled by the C++ compiler, run by `emulation/`, compared with float64.
//!
//! Environment: `SPIKENORM_EXHAUSTIVE=1` runs every plan of every case and more random shapes, `CXX` names
//! the compiler. The tests that break the kernels on purpose are `--ignored`: they take minutes.

#![allow(clippy::unwrap_used)]

mod harness;
mod kit_elementwise;
mod kit_loss;
mod kit_mutations;
mod kit_neuron;
mod kit_optim;
mod kit_pool;
mod kit_unfold;
mod mutations;
mod neu_norm;
mod norm;
mod support;
