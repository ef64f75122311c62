//! A pool of freed blocks. A fresh page costs more to fault in than the arithmetic done on it, so
//! blocks are kept and handed out again, up to a little more than what the recent past needed at once.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use spikenorm_core::Result;
use spikenorm_core::workspace::{self, failpoint};

use crate::block::{Block, Line};

/// Blocks below this many lines (up to 16 KB) have a list of their own each: looking one up is most of what they cost. (The
/// allocator is no faster: an aligned block is cut out of a larger one, and the rest of it is freed.)
const SMALL_LINES: usize = 257;
/// Allocations after which a past peak of live memory stops counting.
const EPOCH: usize = 512;
/// Bytes that may stay cached beyond what was live at once: blocks of many sizes, needed at different moments.
const SLACK_BYTES: usize = 16 << 20;

/// Bytes of this process's tensors on the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Held by tensors.
    pub allocated: usize,
    /// Freed, kept for reuse.
    pub cached: usize,
    /// Largest `allocated` so far.
    pub peak: usize,
}

struct Pool {
    /// By lines, for blocks of less than [`SMALL_LINES`].
    small: [Vec<Block>; SMALL_LINES],
    free: BTreeMap<usize, Vec<Block>>,
    stats: MemoryStats,
    /// Peak of live bytes in the running epoch and in the one before.
    recent_peaks: [usize; 2],
    allocations: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool {
    small: [const { Vec::new() }; SMALL_LINES],
    free: BTreeMap::new(),
    stats: MemoryStats { allocated: 0, cached: 0, peak: 0 },
    recent_peaks: [0; 2],
    allocations: 0,
});

fn lock() -> MutexGuard<'static, Pool> {
    // Every update below leaves the pool consistent, so a poisoned lock is still good.
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Rounds up to eight classes per power of two: at most an eighth is wasted.
fn size_class(lines: usize) -> usize {
    let step = (lines.next_power_of_two() >> 4).max(1);
    lines.div_ceil(step) * step
}

/// Bytes to keep, live or cached, where at most `peak` have been live at once.
fn kept(peak: usize) -> usize {
    peak + peak / 8 + SLACK_BYTES
}

/// A block of at least `bytes` bytes with unspecified (initialised) contents.
pub fn take(bytes: usize) -> Result<Block> {
    failpoint::pass()?;
    let lines = size_class(bytes.div_ceil(size_of::<Line>()).max(1));
    let reused = {
        let mut pool = lock();
        pool.count(lines);
        let reused = match pool.small.get_mut(lines) {
            Some(small) => small.pop(),
            None => pool.free.get_mut(&lines).and_then(Vec::pop),
        };
        if reused.is_some() {
            pool.stats.cached -= lines * size_of::<Line>();
        }
        reused
    };
    if let Some(block) = reused {
        return Ok(block);
    }
    let block = Block::zeroed(lines);
    if block.is_some() {
        workspace::hold_reserve();
    }
    block.ok_or_else(|| {
        let mut pool = lock();
        pool.stats.allocated -= lines * size_of::<Line>();
        workspace::out_of_memory(format_args!(
            "cannot allocate {bytes} bytes ({} bytes are in use by tensors); dispose() of tensors or use a smaller batch",
            pool.stats.allocated
        ))
    })
}

/// Takes a block back.
pub fn give(block: Block) {
    let lines = block.len();
    let bytes = lines * size_of::<Line>();
    let mut pool = lock();
    pool.stats.allocated -= bytes;
    let keep = kept(pool.recent_peaks[0].max(pool.recent_peaks[1]));
    if pool.stats.allocated + pool.stats.cached + bytes <= keep {
        let list = match pool.small.get_mut(lines) {
            Some(small) => small,
            None => pool.free.entry(lines).or_default(),
        };
        // Without memory for its place, the block itself is given back.
        if list.try_reserve(1).is_ok() {
            list.push(block);
            pool.stats.cached += bytes;
        }
    }
}

/// Returns every cached block to the operating system.
pub fn empty_cache() {
    let freed = {
        let mut pool = lock();
        pool.stats.cached = 0;
        (std::mem::take(&mut pool.free), pool.small.each_mut().map(std::mem::take))
    };
    drop(freed);
}

pub fn memory_stats() -> MemoryStats {
    lock().stats
}

impl Pool {
    fn count(&mut self, lines: usize) {
        self.stats.allocated += lines * size_of::<Line>();
        self.stats.peak = self.stats.peak.max(self.stats.allocated);
        self.allocations += 1;
        if self.allocations.is_multiple_of(EPOCH) {
            self.recent_peaks = [0, self.recent_peaks[0]];
            self.trim();
        }
        self.recent_peaks[0] = self.recent_peaks[0].max(self.stats.allocated);
    }

    /// Drops cached blocks, largest first, until no more is kept than the recent past needed.
    fn trim(&mut self) {
        let keep = kept(self.recent_peaks[1]);
        while self.stats.allocated + self.stats.cached > keep {
            let Some(mut class) = self.free.last_entry() else { return self.trim_small(keep) };
            let lines = *class.key();
            if class.get_mut().pop().is_some() {
                self.stats.cached -= lines * size_of::<Line>();
            } else {
                class.remove();
            }
        }
    }

    fn trim_small(&mut self, keep: usize) {
        for (lines, blocks) in self.small.iter_mut().enumerate().rev() {
            let bytes = lines * size_of::<Line>();
            while self.stats.allocated + self.stats.cached > keep && blocks.pop().is_some() {
                self.stats.cached -= bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use spikenorm_core::ErrorCode;

    use super::*;

    #[test]
    fn size_classes_waste_at_most_an_eighth_and_are_their_own_class() {
        for lines in 1..100_000 {
            let class = size_class(lines);
            assert!(class >= lines && (class - lines) * 8 <= lines, "{lines} -> {class}");
            assert_eq!(size_class(class), class);
        }
    }

    #[test]
    fn a_request_no_machine_can_hold_is_an_error_and_leaves_the_count_as_it_was() {
        let error = take(1 << 60).expect_err("2^60 bytes");
        assert_eq!(error.code, ErrorCode::OutOfMemory);
        assert!(memory_stats().allocated < 1 << 60);
    }
}
