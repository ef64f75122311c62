//! What a plan is expected to take, in microseconds, to rank plans by. A model of a multiprocessor that moves bytes, issues
//! instructions and waits, with figures fitted to what plans that read once took for twelve shapes on an H200
//! (`cargo bench -p spikenorm-cuda`): good for choosing, not for telling times.

use super::{
    CudaDevice,
    cuda_plan::{CudaPass, TeamSync},
};

/// What [`of`] looks at.
pub struct Load {
    /// Blocks of a launch.
    pub blocks: usize,
    /// Blocks of this size that share a multiprocessor.
    pub resident: usize,
    pub threads: usize,
    pub team: usize,
    /// Tiles that a block works on one after the other.
    pub turns: usize,
    /// Values of one tensor that a member holds or sweeps over, of one tile.
    pub values: usize,
    /// Rows of all steps of the same.
    pub rows: usize,
    pub cells: usize,
    /// Warps that share a cell.
    pub parts: usize,
    pub value_bytes: usize,
    pub slab_bytes: usize,
    pub chunks: usize,
    pub segmented: bool,
    pub sync: TeamSync,
    pub pass: CudaPass,
}

/// Microseconds of a launch.
const LAUNCH: f64 = 1.0;
/// Bytes a multiprocessor moves in a microsecond.
const BYTES: f64 = 62.0e3;
/// Values it computes in a microsecond, in forward and in backward.
const VALUES: [f64; 2] = [25.5e3, 38.2e3];
/// Microseconds that a tile waits for its first bytes, barriers and the few threads that put sums together.
const TILE: f64 = 10.3;
/// The same for a chunk beyond the first, swept twice.
const CHUNK: f64 = 2.0 * 0.179;
/// A barrier of a cluster, for each member beyond the first and each cluster of blocks that a multiprocessor has.
const CLUSTER: f64 = 1.16;
/// A barrier in global memory.
const COOPERATIVE: f64 = 2.51;
/// A cell for each thread.
const CELL: f64 = 1.41;
/// A row of a tensor for a block of 256 threads.
const ROW: f64 = 0.0057;
/// Rows in pieces take more instructions.
const SEGMENTED: f64 = 1.61;
/// Cost of a byte read a second time: it may still be in the second-level cache.
const AGAIN: f64 = 0.556;
/// Bytes that a slab's two ends waste.
const ENDS: f64 = 4.0;
/// How much of the shorter of moving and computing is hidden behind the longer, for blocks that share a multiprocessor.
const HIDDEN: f64 = 2.0 * 0.40;

pub fn of(load: &Load, device: &CudaDevice) -> f64 {
    let tensors = load.pass.tensors() as f64;
    let values = load.values as f64;
    let again = match load.sync {
        TeamSync::Launches if load.pass == CudaPass::Apply => 0.0,
        TeamSync::Launches => tensors,
        _ => tensors * AGAIN * (1.0 - 1.0 / load.chunks as f64),
    };
    let slab = load.slab_bytes as f64;
    let wasted = (slab + ENDS) / slab * if load.segmented { SEGMENTED } else { 1.0 };
    let moving = values * load.value_bytes as f64 * (tensors + 1.0 + again) * wasted / BYTES;
    let warps = load.threads / 32;
    let items = load.cells * load.parts;
    // The last turn of the warps may leave some without a cell.
    let uneven = (items.div_ceil(warps) * warps) as f64 / items as f64;
    let rate = VALUES[usize::from(load.pass == CudaPass::Backward)];
    let rows = load.rows as f64 * tensors * ROW * 256.0 / load.threads as f64;
    let computing = values / rate * uneven + rows;

    let on_each = load.blocks as f64 / device.multiprocessors as f64;
    let meeting = match load.sync {
        TeamSync::Alone | TeamSync::Launches => 0.0,
        TeamSync::Cluster => CLUSTER * (load.team - 1) as f64 * on_each.max(1.0),
        TeamSync::Cooperative => COOPERATIVE,
    };
    let cells = CELL * (8 * load.cells) as f64 / load.threads as f64;
    let waiting = TILE + meeting + cells + CHUNK * (load.chunks - 1) as f64;
    let sharing = load.resident.min(on_each.ceil() as usize).max(1) as f64;
    let (moving, computing) = (sharing * moving, sharing * computing);
    let turns = load.turns as f64;
    let waves = load.blocks.div_ceil(device.multiprocessors * load.resident.max(1)) as f64;
    let hidden = HIDDEN * (1.0 - 1.0 / sharing) * moving.min(computing);
    let wave = moving + computing - hidden + waiting;
    match load.sync {
        TeamSync::Launches if load.pass == CudaPass::Apply => LAUNCH + waves * turns * wave,
        TeamSync::Launches => 3.0 * LAUNCH + TILE + waves * turns * (wave + waiting),
        _ => LAUNCH + waves * turns * wave,
    }
}
