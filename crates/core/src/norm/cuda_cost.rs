//! What a plan is expected to cost, to rank plans by: the bytes that pass through the busiest
//! multiprocessor, and what each wave of blocks waits for beside them. Rough on purpose: it only has to
//! tell two blocks per multiprocessor from one, a full device from an idle one, one read from two.

use super::{
    CudaDevice,
    cuda_plan::{CudaPass, TeamSync},
};

/// What [`of`] looks at.
pub struct Load {
    pub blocks: usize,
    /// Blocks of this size that share a multiprocessor.
    pub resident: usize,
    /// Times the blocks of a launch run in turn.
    pub rounds: usize,
    /// Bytes of one tensor that a member holds or sweeps over.
    pub member_bytes: usize,
    pub slab_bytes: usize,
    pub chunks: usize,
    pub segmented: bool,
    pub narrow: bool,
    pub sync: TeamSync,
    pub pass: CudaPass,
}

/// A wave's latency in bytes: about 2 µs at the 32 KB a multiprocessor moves per microsecond.
const WAVE: f64 = 64e3;
/// A launch beyond the first, about 4 µs.
const LAUNCH: f64 = 128e3;
/// Cost of a byte read a second time. It may still be in L2, but the writes compete for that.
const AGAIN: f64 = 1.0;

pub fn of(load: &Load, device: &CudaDevice) -> f64 {
    let tensors = load.pass.tensors() as f64;
    let moved = tensors + 1.0;
    let again = match load.sync {
        TeamSync::Launches if load.pass == CudaPass::Apply => 0.0,
        TeamSync::Launches => tensors,
        _ => tensors * AGAIN * (1.0 - 1.0 / load.chunks as f64),
    };
    // Partly used sectors and short bursts at both ends of a slab.
    let efficiency =
        load.slab_bytes as f64 / (load.slab_bytes as f64 + if load.narrow { 128.0 } else { 64.0 });
    let bytes =
        load.member_bytes as f64 * (moved + again) / efficiency * if load.segmented { 1.05 } else { 1.0 };
    let per_multiprocessor = load.blocks.div_ceil(device.multiprocessors) as f64;
    let waves = load.blocks.div_ceil(device.multiprocessors * load.resident.max(1)) as f64;
    // Alone on its multiprocessor a block either reads or writes.
    let overlap = if load.resident > 1 && per_multiprocessor > 1.0 { 1.0 } else { 1.1 };
    let meeting = match load.sync {
        TeamSync::Alone => 0.0,
        TeamSync::Cluster => 0.3 * WAVE,
        TeamSync::Cooperative => WAVE,
        TeamSync::Launches if load.pass == CudaPass::Apply => 0.0,
        TeamSync::Launches => 2.0 * LAUNCH,
    };
    load.rounds as f64 * (per_multiprocessor * bytes * overlap + waves * WAVE + meeting)
}
