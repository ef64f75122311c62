//! The training kit on the CPU, one file per operation.

pub mod conv;
pub mod linear;
pub mod loss;
pub mod neuron;
pub mod optim;
pub mod pool;
mod scratch;
#[cfg(test)]
mod tests;
mod unfold;
