//! The twelve batch norms on the CPU: sums over a tile while it is read, the formulas of
//! `spikenorm_core::norm` between, and the same tile written while it is still in cache.

mod backward;
mod forward;
mod kernels_long;
mod kernels_short;
mod small;
#[cfg(test)]
mod tests;
mod tile;
pub mod tiny;

pub use backward::backward;
pub use forward::forward;
