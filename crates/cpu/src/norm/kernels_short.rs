//! Loops for channels with few values in space (S = 1, 4², 6²): whole slabs `[channels, S]` are treated
//! as vectors of columns, with the coefficients of a channel repeated S times. Vectorises for any S.

use spikenorm_core::norm::Moments;

use super::tile::Tile;
use crate::element::{Element, Real};

/// Columns handled together: three arrays of them stay in the first-level cache.
const COLUMNS: usize = 1024;
/// Rows added up before they are folded into float64.
const ROWS: usize = 32;
/// Bytes of a group of rows that both passes of the moments should find in the first-level cache.
const GROUP_BYTES: usize = 16 << 10;

/// Channel ranges of at most [`COLUMNS`] columns.
#[inline(always)]
fn column_groups(tile: &Tile) -> impl Iterator<Item = (usize, usize)> {
    let step = (COLUMNS / tile.grid.s).max(1);
    let channels = tile.c;
    (0..channels).step_by(step).map(move |c| (c, step.min(channels - c)))
}

/// Sum of each channel's S columns, in float64.
#[inline(always)]
fn channel_sums<A: Real>(columns: &[A], s: usize, mut each: impl FnMut(usize, f64)) {
    for (c, values) in columns.chunks_exact(s).enumerate() {
        each(c, values.iter().fold(0.0, |sum, v| sum + v.to_f64()));
    }
}

/// Moments of every channel of step `t` of the tile, merged into `cells`.
#[inline(always)]
pub fn moments<E: Element>(tile: &Tile, x: &[E], t: usize, cells: &mut [Moments]) {
    let s = tile.grid.s;
    for (c, channels) in column_groups(tile) {
        let columns = channels * s;
        let rows = (GROUP_BYTES / (columns * size_of::<E>())).clamp(1, ROWS);
        let mut sums = vec![0.0; columns];
        let mut squares = vec![E::Acc::default(); columns];
        let mut pivots = vec![E::Acc::default(); columns];
        let mut totals = vec![0.0; channels];
        for first in (0..tile.n).step_by(rows) {
            let last = (first + rows).min(tile.n);
            let count = ((last - first) * s) as f64;
            sums.fill(0.0);
            for n in first..last {
                let row = &tile.slab(x, t, n)[c * s..][..columns];
                for (sum, x) in sums.iter_mut().zip(row) {
                    *sum += x.load().to_f64();
                }
            }
            channel_sums(&sums, s, |i, sum| {
                totals[i] = sum;
                pivots[i * s..][..s].fill(E::Acc::from_f64(sum / count));
            });
            squares.fill(E::Acc::default());
            for n in first..last {
                let row = &tile.slab(x, t, n)[c * s..][..columns];
                for ((square, pivot), x) in squares.iter_mut().zip(&pivots).zip(row) {
                    let d = x.load() - *pivot;
                    *square += d * d;
                }
            }
            channel_sums(&squares, s, |i, square| {
                let pivot = pivots[i * s].to_f64();
                cells[c + i].merge(Moments::from_sums(count, totals[i], pivot, square));
            });
        }
    }
}

/// Repeats one number per channel over its columns.
#[inline(always)]
pub fn spread<A: Copy>(per_channel: impl Iterator<Item = A>, s: usize, out: &mut [A]) {
    for (columns, value) in out.chunks_exact_mut(s).zip(per_channel) {
        columns.fill(value);
    }
}

/// `y = ((x − high) − low)·a + b`, coefficients per column.
#[inline(always)]
pub fn apply<E: Element>(x: &[E], y: &mut [E], [high, low, a, b]: [&[E::Acc]; 4]) {
    for (((((x, y), high), low), a), b) in x.iter().zip(y).zip(high).zip(low).zip(a).zip(b) {
        *y = E::store(((x.load() - *high) - *low) * *a + *b);
    }
}

/// Σ dy and Σ dy·(x − mean) of every channel of step `t`, added to `sums`.
#[inline(always)]
pub fn backward_sums<E: Element>(
    tile: &Tile,
    x: &[E],
    dy: &[E],
    t: usize,
    means: &[f64],
    sums: &mut [[f64; 2]],
) {
    let s = tile.grid.s;
    for (c, channels) in column_groups(tile) {
        let columns = channels * s;
        let means = &means[c * s..][..columns];
        // Gradients of both signs cancel, so they are summed in float64, where products of float32 are exact.
        let mut first_sums = vec![0.0; columns];
        let mut second_sums = vec![0.0; columns];
        for n in 0..tile.n {
            let x = &tile.slab(x, t, n)[c * s..][..columns];
            let dy = &tile.slab(dy, t, n)[c * s..][..columns];
            for ((((s1, s2), x), dy), mean) in
                first_sums.iter_mut().zip(&mut second_sums).zip(x).zip(dy).zip(means)
            {
                let g = dy.load().to_f64();
                *s1 += g;
                *s2 += g * (x.load().to_f64() - mean);
            }
        }
        channel_sums(&first_sums, s, |i, sum| sums[c + i][0] += sum);
        channel_sums(&second_sums, s, |i, sum| sums[c + i][1] += sum);
    }
}

/// `dx = g·dy − c1 − ((x − high) − low)·c2`, coefficients per column.
#[inline(always)]
pub fn backward_apply<E: Element>(x: &[E], dy: &[E], dx: &mut [E], [high, low, g, c1, c2]: [&[E::Acc]; 5]) {
    let coefficients = high.iter().zip(low).zip(g).zip(c1).zip(c2);
    for (((x, dy), dx), ((((high, low), g), c1), c2)) in x.iter().zip(dy).zip(dx).zip(coefficients) {
        *dx = E::store(dy.load() * *g - *c1 - ((x.load() - *high) - *low) * *c2);
    }
}
