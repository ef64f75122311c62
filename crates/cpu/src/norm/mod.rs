//! The twelve batch norms on the CPU: sums over a tile while it is read, the formulas of
//! `spikenorm_core::norm` between, and the same tile written while it is still in cache.

mod backward;
mod empty;
mod forward;
mod kernels_long;
mod kernels_short;
#[cfg(test)]
mod mean_tests;
#[cfg(test)]
mod range_tests;
mod small;
mod sums;
#[cfg(test)]
mod tests;
mod tile;
mod tiny;

use spikenorm_core::Result;
use spikenorm_core::norm::{NormForward, NormGrads, NormOutput, NormSaved};

use crate::HostMemory;
use crate::backend::CpuTensor;
use crate::element::{Element, fast};

pub fn forward<E: Element>(call: &NormForward<'_, HostMemory>) -> Result<NormOutput<HostMemory>> {
    if call.grid.is_empty() {
        empty::forward(call, E::DTYPE)
    } else if tiny::fits(E::DTYPE, call.grid) {
        tiny::forward::<fast::F32>(call)
    } else {
        forward::forward::<E>(call)
    }
}

/// What a forward saved does not depend on which way it went.
pub fn backward<E: Element>(saved: &NormSaved<HostMemory>, dy: &CpuTensor) -> Result<NormGrads<HostMemory>> {
    if saved.grid.is_empty() {
        empty::backward(saved, dy)
    } else if tiny::fits(E::DTYPE, saved.grid) {
        tiny::backward::<fast::F32>(saved, dy)
    } else {
        backward::backward::<E>(saved, dy)
    }
}
