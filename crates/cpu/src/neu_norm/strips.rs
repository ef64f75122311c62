//! How a NeuNorm pass over `[T, N, C, S]` is shared out and walked: strips of pixels, and their channels in chunks.

use spikenorm_core::{Grid, Result, workspace};

use crate::element::Real;

/// Bytes of one sample of one step up to which it is taken whole. Then its channels follow each other in memory, however few
/// pixels they have.
const WHOLE_BYTES: usize = 512 << 10;
/// Bytes of one step's piece of a strip, where a sample is cut, so that it is still in cache when it is written.
const STRIP_BYTES: usize = 256 << 10;
/// Pixels of a strip are a multiple of these: whole cache lines for every dtype.
const PIXELS: usize = 64;
/// Columns whose sums are in registers together; see `norm::kernels_long` for why not fewer.
pub const COLUMNS: usize = 32;

/// Some pixels of some samples, all channels and time steps.
///
/// Channels come in chunks, side by side where the strip has all pixels: loops are so as long for 4 x 4 pixels as for
/// 32 x 32, and what is per pixel (the state, a sum over channels) is repeated over a chunk's columns.
#[derive(Clone, Copy, Debug)]
pub struct Strip {
    grid: Grid,
    pub n0: usize,
    pub n: usize,
    pub p0: usize,
    pub pixels: usize,
    /// Channels of a chunk; the last may have fewer.
    channels: usize,
}

/// Strips in a fixed order: groups of `samples` samples outside, pixels inside. `columns`: about as many as a chunk may have
/// of several channels.
pub fn strips(grid: Grid, size: usize, samples: usize, columns: usize) -> Result<Vec<Strip>> {
    let is_whole = grid.c * grid.s * size <= WHOLE_BYTES || grid.s <= PIXELS;
    let (pixels, channels) = if is_whole {
        // The fewest whose columns need no remainder, and of those as many as fit.
        let aligned = (1..=COLUMNS).find(|channels| (channels * grid.s).is_multiple_of(COLUMNS));
        let aligned = aligned.unwrap_or(COLUMNS);
        let channels = aligned * (columns / (aligned * grid.s).max(1)).max(1);
        (grid.s, channels.min(grid.c.max(1)))
    } else {
        let in_a_sample = (grid.c * grid.s * size).div_ceil(STRIP_BYTES);
        (grid.s.div_ceil(in_a_sample).next_multiple_of(PIXELS).min(grid.s), 1)
    };
    let mut all = Vec::new();
    for n0 in (0..grid.n).step_by(samples.max(1)) {
        for p0 in (0..grid.s).step_by(pixels.max(1)) {
            let (n, pixels) = (samples.min(grid.n - n0), pixels.min(grid.s - p0));
            workspace::push(&mut all, Strip { grid, n0, n, p0, pixels, channels })?;
        }
    }
    Ok(all)
}

impl Strip {
    /// Columns of a chunk; the last may have fewer.
    #[inline(always)]
    pub fn columns(&self) -> usize {
        self.channels * self.pixels
    }

    #[inline(always)]
    pub fn chunks(&self) -> usize {
        self.grid.c.div_ceil(self.channels)
    }

    /// Values of all its chunks.
    pub fn values(&self) -> usize {
        self.grid.c * self.pixels
    }

    /// A chunk of the slab `[C, S]`.
    #[inline(always)]
    pub fn chunk<'a, E>(&self, slab: &'a [E], index: usize) -> &'a [E] {
        let s = self.grid.s;
        let start = index * self.channels * s + self.p0;
        let more = (self.grid.c - index * self.channels).min(self.channels) - 1;
        &slab[start..start + more * s + self.pixels]
    }

    /// The slab of step `t` and the strip's sample `n`.
    #[inline(always)]
    pub fn slab<'a, E>(&self, data: &'a [E], t: usize, n: usize) -> &'a [E] {
        let slab = self.grid.c * self.grid.s;
        &data[(t * self.grid.n + self.n0 + n) * slab..][..slab]
    }

    /// The pixels of step `t` and the strip's sample `n` in data `[T, N, S]`.
    #[inline(always)]
    pub fn of_state<'a, A>(&self, states: &'a [A], t: usize, n: usize) -> &'a [A] {
        let start = (t * self.grid.n + self.n0 + n) * self.grid.s + self.p0;
        &states[start..start + self.pixels]
    }

    /// The pixels of a row `[S]`.
    #[inline(always)]
    pub fn of_row<'a, A>(&self, row: &'a [A]) -> &'a [A] {
        &row[self.p0..self.p0 + self.pixels]
    }

    /// Adds up what a chunk's columns have of each pixel: the second half of the copies to the first, again and again.
    #[inline(always)]
    pub fn add_copies<'a, A: Real>(&self, columns: &'a mut [A]) -> &'a [A] {
        let mut copies = columns.len() / self.pixels.max(1);
        while copies > 1 {
            let kept = copies.div_ceil(2);
            let (totals, parts) = columns[..copies * self.pixels].split_at_mut(kept * self.pixels);
            for (total, part) in totals.iter_mut().zip(parts) {
                *total += *part;
            }
            copies = kept;
        }
        &columns[..self.pixels]
    }

    /// Repeats what is per pixel over a chunk's columns.
    #[inline(always)]
    pub fn repeat<A: Copy>(&self, pixels: &[A], columns: &mut [A]) {
        columns[..pixels.len()].copy_from_slice(pixels);
        let mut done = pixels.len();
        while done < columns.len() {
            let more = done.min(columns.len() - done);
            columns.copy_within(..more, done);
            done += more;
        }
    }
}

/// Cuts `[T, N, C, S]` into the strips' pieces, for each in the order of (t, n), and within one as its chunks follow each
/// other: one slab where the strip has all pixels, else one row for each channel.
pub fn cut<'a, E>(out: &'a mut [E], grid: Grid, strips: &[Strip]) -> Result<Vec<Vec<&'a mut [E]>>> {
    if strips.first().is_some_and(|first| first.pixels == grid.s) {
        let slab = grid.c * grid.s;
        cut_rows(out, slab, 1, grid.n, strips, slab)
    } else {
        cut_states(out, grid, grid.c, strips)
    }
}

/// Cuts `[T, N, rows, S]` into the strips' pixels.
pub fn cut_states<'a, A>(
    out: &'a mut [A],
    grid: Grid,
    rows: usize,
    strips: &[Strip],
) -> Result<Vec<Vec<&'a mut [A]>>> {
    let pixels = strips.first().map_or(1, |first| first.pixels);
    cut_rows(out, grid.s, rows, grid.n, strips, pixels)
}

fn cut_rows<'a, E>(
    out: &'a mut [E],
    row: usize,
    rows: usize,
    samples: usize,
    strips: &[Strip],
    width: usize,
) -> Result<Vec<Vec<&'a mut [E]>>> {
    let mut all: Vec<Vec<&mut [E]>> = workspace::collect(strips.iter().map(|_| Vec::new()))?;
    let Some(first) = strips.first().filter(|_| row > 0) else { return Ok(all) };
    let per_group = row.div_ceil(width);
    for (index, row) in out.chunks_exact_mut(row).enumerate() {
        let group = index / rows % samples / first.n * per_group;
        for (piece, list) in row.chunks_mut(width).zip(&mut all[group..]) {
            workspace::push(list, piece)?;
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn strips_have_every_value_once_and_cut_agrees_with_their_chunks(
            t in 1usize..4, n in 1usize..6, c in 1usize..70, s in prop_oneof![1usize..200, Just(2500usize)],
            samples in 1usize..4, columns in 1usize..600,
        ) {
            let grid = Grid { t, n, c, s };
            let indices: Vec<usize> = (0..grid.len()).collect();
            let mut out = indices.clone();
            let mut seen = vec![0; grid.len()];
            let strips = strips(grid, 8, samples, columns).expect("memory");
            for (strip, pieces) in strips.iter().zip(cut(&mut out, grid, &strips).expect("memory")) {
                let mut chunks = pieces.into_iter().flat_map(|piece| piece.chunks_mut(strip.columns()));
                for t in 0..t {
                    for n in 0..strip.n {
                        for index in 0..strip.chunks() {
                            let chunk = strip.chunk(strip.slab(&indices, t, n), index);
                            prop_assert_eq!(&*chunks.next().expect("as many"), chunk);
                            chunk.iter().for_each(|&index| seen[index] += 1);
                        }
                    }
                }
                prop_assert!(chunks.next().is_none());
            }
            prop_assert!(seen.iter().all(|&count| count == 1));
        }
    }
}
