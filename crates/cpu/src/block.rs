//! Blocks of memory: what the pool hands out. Large ones are mapped on huge pages where the system has them, because
//! walking a channel through a tensor touches a page of 4 KB per row, and faulting in and translating so many pages
//! costs more than the arithmetic.

use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};
use memmap2::MmapMut;

/// One cache line: the unit and the alignment of every block.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Line([u8; 64]);

/// A huge page on x86-64 and, mostly, on aarch64. Smaller blocks would not fill one.
const HUGE_PAGE: usize = 2 << 20;

/// Initialised memory, aligned to a cache line.
#[derive(Debug)]
pub enum Block {
    Heap(Vec<Line>),
    /// The first so many bytes of a mapping.
    Mapped(MmapMut, usize),
}

impl Block {
    /// A block of zeros; `None` where there is no memory for it.
    pub fn zeroed(lines: usize) -> Option<Self> {
        let bytes = lines.checked_mul(size_of::<Line>())?;
        if bytes >= HUGE_PAGE
            // Linux starts a mapping at a huge page if it is a number of them long.
            && let Some(whole) = bytes.checked_next_multiple_of(HUGE_PAGE)
            && let Ok(map) = MmapMut::map_anon(whole)
        {
            // Only advice: a kernel without huge pages says no, and the block is as good as any other. Not for the end,
            // which would take up a whole one.
            #[cfg(target_os = "linux")]
            let _ = map.advise_range(memmap2::Advice::HugePage, 0, bytes / HUGE_PAGE * HUGE_PAGE);
            return Some(Self::Mapped(map, bytes));
        }
        bytemuck::allocation::try_zeroed_vec(lines).ok().map(Self::Heap)
    }
}

impl Default for Block {
    fn default() -> Self {
        Self::Heap(Vec::new())
    }
}

impl Deref for Block {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        match self {
            Self::Heap(lines) => lines,
            Self::Mapped(map, bytes) => bytemuck::cast_slice(&map[..*bytes]),
        }
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [Line] {
        match self {
            Self::Heap(lines) => lines,
            Self::Mapped(map, bytes) => bytemuck::cast_slice_mut(&mut map[..*bytes]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heap_and_mapped_blocks_are_zeroed_whole_and_aligned() {
        for lines in [1, 1000, HUGE_PAGE / 64, 3 * HUGE_PAGE / 64 + 7] {
            let mut block = Block::zeroed(lines).expect("memory");
            assert_eq!(block.len(), lines);
            assert_eq!(block.as_ptr().addr() % 64, 0);
            assert!(bytemuck::cast_slice::<Line, u64>(&block).iter().all(|&word| word == 0));
            bytemuck::cast_slice_mut::<Line, u8>(&mut block)[lines * 64 - 1] = 7;
            assert_eq!(bytemuck::cast_slice::<Line, u8>(&block)[lines * 64 - 1], 7);
        }
    }

    #[test]
    fn a_size_no_machine_has_is_refused() {
        assert!(Block::zeroed(usize::MAX / 64).is_none());
        assert!(Block::zeroed(1 << 54).is_none());
    }
}
