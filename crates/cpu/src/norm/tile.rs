//! A tile: some time steps, samples and neighbouring channels of a grid, and its slabs, the contiguous
//! `[channels, S]` piece of each (t, n). Everything a task touches goes through here.

use spikenorm_core::norm::{CpuPlan, Rows};
use spikenorm_core::{Grid, Result, workspace};

/// Values in space beyond which a channel's row is always summed on its own.
const SHORT_ROW: usize = 1024;
/// And from which it is in tiles too wide for whole slabs to be walked by column (that takes arrays of this many columns
/// at most), or with too few slabs to take several at a time.
const FAIRLY_LONG_ROW: usize = 64;
const WIDE_TILE: usize = 4096;
const FEW_SAMPLES: usize = 8;

#[derive(Clone, Copy, Debug)]
pub struct Tile {
    pub grid: Grid,
    pub t0: usize,
    pub t: usize,
    pub n0: usize,
    pub n: usize,
    pub c0: usize,
    pub c: usize,
}

impl Tile {
    /// The whole grid.
    pub fn whole(grid: Grid) -> Self {
        Self { grid, t0: 0, t: grid.t, n0: 0, n: grid.n, c0: 0, c: grid.c }
    }

    /// In a table `[statistics rows, channels]` of this tile: where the row of step `t` has channel `c`, both counted in the
    /// tensor.
    #[inline(always)]
    pub fn index(&self, statistics: Rows, t: usize, c: usize) -> usize {
        (statistics.of(t) - statistics.of(self.t0)) * self.c + c - self.c0
    }

    /// Where slab (t, n), counted within the tile, starts in the tensor.
    #[inline(always)]
    pub fn start(&self, t: usize, n: usize) -> usize {
        let grid = &self.grid;
        (((self.t0 + t) * grid.n + self.n0 + n) * grid.c + self.c0) * grid.s
    }

    #[inline(always)]
    pub fn slab<'a, E>(&self, data: &'a [E], t: usize, n: usize) -> &'a [E] {
        let start = self.start(t, n);
        &data[start..start + self.c * self.grid.s]
    }

    /// Whether rows are summed one by one. Otherwise slabs are, several at a time and column by column: that vectorises for
    /// any S, and several streams from memory hide its latency where one does not.
    #[inline(always)]
    pub fn is_long(&self) -> bool {
        let s = self.grid.s;
        s > SHORT_ROW || (s >= FAIRLY_LONG_ROW && (self.c * s > WIDE_TILE || self.n <= FEW_SAMPLES))
    }

    /// Whether the slabs of a time step follow each other in memory.
    #[inline(always)]
    pub fn is_contiguous(&self) -> bool {
        self.c == self.grid.c
    }

    /// The samples in the order of the second sweep. The last ones read are the likeliest to be still in cache; but where
    /// rows follow each other in memory, prefetchers go forwards.
    #[inline(always)]
    pub fn again(&self) -> impl Iterator<Item = usize> {
        let (n, forwards) = (self.n, self.is_contiguous());
        (0..n).map(move |i| if forwards { i } else { n - 1 - i })
    }
}

/// The tiles of a plan, in a fixed order. Parts of one tile (`CpuPlan::Together`) follow each other.
pub fn tiles(grid: Grid, plan: CpuPlan) -> Result<Vec<Tile>> {
    let (steps, rows, per_tile) = match plan {
        CpuPlan::Channels { per_tile, steps } => (steps, grid.n, per_tile),
        CpuPlan::Together { steps, rows } => (steps, rows, 1),
        CpuPlan::Blocks { rows } => (1, rows, grid.c),
    };
    let pieces = |extent: usize, piece: usize| {
        (0..extent).step_by(piece.max(1)).map(move |start| (start, piece.min(extent - start)))
    };
    // Without steps or samples there are still channels.
    let outer = pieces(grid.t.max(1), steps).flat_map(|(t0, t)| {
        pieces(grid.c, per_tile).map(move |(c0, c)| Tile { t0, t: t.min(grid.t), c0, c, ..Tile::whole(grid) })
    });
    if rows >= grid.n {
        return workspace::collect(outer);
    }
    workspace::collect(outer.flat_map(|tile| pieces(grid.n, rows).map(move |(n0, n)| Tile { n0, n, ..tile })))
}

/// The tiles that share their channels and steps: all parts of one.
pub fn by_channels(tiles: &[Tile]) -> impl Iterator<Item = (Tile, &[Tile])> {
    tiles.chunk_by(|before, tile| tile.n0 > before.n0).map(|parts| {
        let whole = Tile { n0: 0, n: parts[0].grid.n, ..parts[0] };
        (whole, parts)
    })
}

/// Cuts `out` into one list of slabs per tile, in the order of [`tiles`] and, within a tile, of (t, n).
pub fn cut<'a, E>(out: &'a mut [E], tiles: &[Tile]) -> Result<Vec<Vec<&'a mut [E]>>> {
    let Some(first) = tiles.first() else { return Ok(Vec::new()) };
    let grid = first.grid;
    let lists = tiles.iter().map(|tile| workspace::with_capacity(tile.t * tile.n));
    let mut cut: Vec<Vec<&mut [E]>> = workspace::try_collect(lists)?;
    // Else there is something of every extent to divide by.
    if out.is_empty() {
        return Ok(cut);
    }
    let (across, parts) = (grid.c.div_ceil(first.c), grid.n.div_ceil(first.n));
    let (mut t, mut n) = (0, 0);
    for slab in out.chunks_exact_mut(grid.c * grid.s) {
        let start = t / first.t * across * parts + n / first.n;
        for (piece, list) in slab.chunks_mut(first.c * grid.s).zip(cut[start..].iter_mut().step_by(parts)) {
            list.push(piece);
        }
        n += 1;
        if n == grid.n {
            (t, n) = (t + 1, 0);
        }
    }
    Ok(cut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tiles_cover_every_element_once_and_cut_agrees_with_them(
            t in 0usize..5, n in 0usize..7, c in 1usize..9, s in 0usize..5, size in 1usize..9, steps in 1usize..5,
            rows in 1usize..7, kind in 0..3,
        ) {
            let grid = Grid { t, n, c, s };
            let (per_tile, steps, rows) = (size.min(c), steps.min(t), rows.min(n.max(1)));
            let plan = match kind {
                0 => CpuPlan::Channels { per_tile, steps },
                1 => CpuPlan::Together { steps, rows },
                _ => CpuPlan::Blocks { rows },
            };
            let tiles = tiles(grid, plan).expect("memory");
            let indices: Vec<usize> = (0..grid.len()).collect();
            let mut out = indices.clone();
            let mut seen = vec![0; grid.len()];
            for (tile, slabs) in tiles.iter().zip(cut(&mut out, &tiles).expect("memory")) {
                prop_assert_eq!(slabs.len(), if indices.is_empty() { 0 } else { tile.t * tile.n });
                for (i, slab) in slabs.iter().enumerate() {
                    prop_assert_eq!(&**slab, tile.slab(&indices, i / tile.n, i % tile.n));
                    for &index in slab.iter() {
                        seen[index] += 1;
                    }
                }
            }
            prop_assert!(seen.iter().all(|&count| count == 1));
            let shared: Vec<_> = by_channels(&tiles).collect();
            prop_assert!(shared.iter().all(|(whole, parts)| parts.iter().map(|part| part.n).sum::<usize>() == whole.n));
            prop_assert_eq!(shared.iter().map(|(_, parts)| parts.len()).sum::<usize>(), tiles.len());
        }
    }
}
