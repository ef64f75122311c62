//! How the CPU splits a pass. The plan depends on the shape alone, never on the number of threads, so
//! that results are the same bits for any number of them.

use super::Rows;
use crate::Grid;

/// Bytes a task may keep hot between its two sweeps: about a core's share of a server's last-level cache. A second-level
/// cache would be faster, but narrow tiles walk memory in strides, which costs more (measured on Zen 3).
const HOT_BYTES: usize = 4 << 20;
/// Bytes that all threads together may keep hot: of a tile that one thread alone could not.
const HOT_TOGETHER_BYTES: usize = 8 << 20;
/// Contiguous bytes of a row for that to be worth while. Shorter ones lie on few sets of the last-level cache where strides
/// are powers of two, and do not stay there (measured: 4 KB gain nothing, 1 KB lose).
const LONG_SLAB_BYTES: usize = 16 << 10;
/// What such a tile is cut into, for more threads than a processor has that is likely to be met.
const PARTS: usize = 32;
/// Contiguous bytes of a row that are worth having: memory's pages, and what the prefetchers follow.
const WIDE_SLAB_BYTES: usize = 4 << 10;
/// Contiguous bytes of a row below which walking memory in strides costs more than reading it twice.
const NARROW_SLAB_BYTES: usize = 2 << 10;
/// Tasks for which slabs are kept narrower than wide.
const ENOUGH_TASKS: usize = 16;
/// Tasks below which there is nothing to balance.
const LEAST_TASKS: usize = 4;
/// Bytes that a task should have: narrow tiles fall on few sets of the first-level cache where strides are powers of two.
const TASK_BYTES: usize = 256 << 10;
/// A tensor below this is one task: handing it out costs more than computing it.
const SMALL_BYTES: usize = 64 << 10;
/// Bytes of a block in the two-sweep plan.
const BLOCK_BYTES: usize = 256 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuPlan {
    /// A task owns `per_tile` neighbouring channels over `steps` time steps (all that share statistics, at least) and all
    /// samples, and sums and writes them while they are in cache: memory is read once.
    Channels { per_tile: usize, steps: usize },
    /// As `Channels` of one channel, but shared out in parts of `rows` samples, with a barrier between sums and writing, one
    /// channel after the other: memory is read once, of channels that only all threads together can keep in cache.
    Together { steps: usize, rows: usize },
    /// A task owns `rows` whole samples `[C, S]` of one time step. Two sweeps, with a barrier
    /// between them: for channels that do not fit in cache, or are too few to share out.
    Blocks { rows: usize },
}

impl CpuPlan {
    /// `size`: bytes of an element. `tensors`: how many are read (x, or x and dy).
    pub fn new(grid: Grid, statistics: Rows, size: usize, tensors: usize) -> Self {
        let channel_row = grid.s * size;
        let total = channel_row * grid.t * grid.n * grid.c * tensors;
        if total <= SMALL_BYTES {
            return Self::Channels { per_tile: grid.c.max(1), steps: grid.t };
        }
        // Steps with statistics of their own have nothing to do with each other: tiles of one are wider for their bytes.
        let steps = if statistics == Rows::PerStep { 1 } else { grid.t };
        let parts = grid.t / steps;
        let channel = channel_row * steps * grid.n * tensors;
        let channels_of = |bytes: usize| bytes.div_ceil(channel_row.max(1)).min(grid.c);
        let narrow = channels_of(NARROW_SLAB_BYTES);
        let balanced = channels_of(WIDE_SLAB_BYTES).min(grid.c * parts / ENOUGH_TASKS);
        let balanced = balanced.max(narrow).max((TASK_BYTES / channel.max(1)).min(grid.c));
        let per_tile = balanced.min(HOT_BYTES / channel.max(1));
        // Many channels could be hot together, or tiles are as wide as is good for memory.
        let is_worth_it = per_tile == balanced || per_tile * channel_row >= WIDE_SLAB_BYTES;
        if is_worth_it
            && per_tile >= narrow.max(1)
            && grid.c.div_ceil(per_tile) * parts >= LEAST_TASKS.min(total / TASK_BYTES)
        {
            return Self::Channels { per_tile, steps };
        }
        if channel_row >= LONG_SLAB_BYTES && channel <= HOT_TOGETHER_BYTES && grid.n > 1 {
            return Self::Together { steps, rows: grid.n.div_ceil(PARTS) };
        }
        Self::blocks(grid, size * tensors)
    }

    /// The plan of whole samples.
    pub fn blocks(grid: Grid, bytes_per_value: usize) -> Self {
        let sample = grid.c * grid.s * bytes_per_value;
        Self::Blocks { rows: (BLOCK_BYTES / sample.max(1)).clamp(1, grid.n.max(1)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_tile_is_never_empty_and_never_larger_than_the_grid(
            t in 1usize..33, n in 1usize..129, c in 1usize..600, s in 1usize..4097, size in 1usize..9, tensors in 1usize..3,
            per_step: bool,
        ) {
            let statistics = if per_step { Rows::PerStep } else { Rows::Shared };
            match CpuPlan::new(Grid { t, n, c, s }, statistics, size, tensors) {
                CpuPlan::Channels { per_tile, steps } => {
                    prop_assert!(steps == t || (per_step && steps == 1));
                    prop_assert!((1..=c).contains(&per_tile));
                    let tile = per_tile * s * steps * n * size * tensors;
                    prop_assert!(tile <= HOT_BYTES || t * n * c * s * size * tensors <= SMALL_BYTES);
                }
                CpuPlan::Together { steps, rows } => {
                    prop_assert!(steps == t || (per_step && steps == 1));
                    prop_assert!((1..=n).contains(&rows));
                    prop_assert!(s * steps * n * size * tensors <= HOT_TOGETHER_BYTES);
                }
                CpuPlan::Blocks { rows } => prop_assert!((1..=n).contains(&rows)),
            }
        }
    }
}
