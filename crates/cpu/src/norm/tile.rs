//! A tile: some time steps, samples and neighbouring channels of a grid, and its slabs, the contiguous
//! `[channels, S]` piece of each (t, n). Everything a task touches goes through here.

use spikenorm_core::Grid;
use spikenorm_core::norm::{CpuPlan, Rows};

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

/// The tiles of a plan, in a fixed order.
pub fn tiles(grid: Grid, plan: CpuPlan) -> Vec<Tile> {
    let whole = Tile::whole(grid);
    match plan {
        CpuPlan::Channels { per_tile, steps } => (0..grid.t.max(1))
            .step_by(steps.max(1))
            .flat_map(|t0| {
                let t = steps.min(grid.t - t0);
                (0..grid.c).step_by(per_tile).map(move |c0| Tile {
                    t0,
                    t,
                    c0,
                    c: per_tile.min(grid.c - c0),
                    ..whole
                })
            })
            .collect(),
        CpuPlan::Blocks { rows } => (0..grid.t)
            .flat_map(|t0| {
                (0..grid.n).step_by(rows).map(move |n0| Tile {
                    t0,
                    t: 1,
                    n0,
                    n: rows.min(grid.n - n0),
                    ..whole
                })
            })
            .collect(),
    }
}

/// Cuts `out` into one list of slabs per tile, in the order of [`tiles`] and, within a tile, of (t, n).
pub fn cut<'a, E>(out: &'a mut [E], tiles: &[Tile]) -> Vec<Vec<&'a mut [E]>> {
    let Some(first) = tiles.first() else { return Vec::new() };
    let grid = first.grid;
    let row = grid.c * grid.s;
    if row == 0 {
        return tiles.iter().map(|_| Vec::new()).collect();
    }
    let mut cut: Vec<Vec<&mut [E]>> = tiles.iter().map(|tile| Vec::with_capacity(tile.t * tile.n)).collect();
    let blocks = first.is_contiguous();
    let mut block = 0;
    let across = grid.c.div_ceil(first.c);
    for (at, slab) in out.chunks_exact_mut(row).enumerate() {
        if blocks {
            // Tiles follow each other in memory: fill one after the other.
            while cut[block].len() == tiles[block].t * tiles[block].n {
                block += 1;
            }
            cut[block].push(slab);
        } else {
            let steps = at / grid.n / first.t;
            for (piece, list) in slab.chunks_mut(first.c * grid.s).zip(&mut cut[steps * across..]) {
                list.push(piece);
            }
        }
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tiles_cover_every_element_once_and_cut_agrees_with_them(
            t in 1usize..5, n in 1usize..7, c in 1usize..9, s in 1usize..5, size in 1usize..9, steps in 1usize..5,
            by_channels: bool,
        ) {
            let grid = Grid { t, n, c, s };
            let plan = if by_channels {
                CpuPlan::Channels { per_tile: size.min(c), steps: steps.min(t) }
            } else {
                CpuPlan::Blocks { rows: size.min(n) }
            };
            let tiles = tiles(grid, plan);
            let indices: Vec<usize> = (0..grid.len()).collect();
            let mut out = indices.clone();
            let mut seen = vec![0; grid.len()];
            for (tile, slabs) in tiles.iter().zip(cut(&mut out, &tiles)) {
                prop_assert_eq!(slabs.len(), tile.t * tile.n);
                for (i, slab) in slabs.iter().enumerate() {
                    prop_assert_eq!(&**slab, tile.slab(&indices, i / tile.n, i % tile.n));
                    for &index in slab.iter() {
                        seen[index] += 1;
                    }
                }
            }
            prop_assert!(seen.iter().all(|&count| count == 1));
        }
    }
}
