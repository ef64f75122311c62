//! Loops for channels with up to about a thousand values in space (see `Tile::is_long`): whole slabs `[channels, S]` are
//! treated as vectors of columns, with what belongs to a channel repeated S times. Vectorises for any S.
//!
//! Sums take several slabs at a time: the columns' totals are loaded and stored less often, and several streams from memory
//! hide its latency. Where slabs follow each other, fewer: one stream in order is what memory and its prefetchers are best
//! at.

use std::ops::Range;

use spikenorm_core::norm::{ChannelMoments, Moments};
use spikenorm_core::{Result, workspace};

use super::kernels_long::{gathered, is_exact};
use super::sums::{self, few};
use super::tile::Tile;
use crate::element::{Element, Real};
use crate::stream::{Fill, prefetch, write};

/// Columns handled together: three arrays of them stay in the first-level cache.
const COLUMNS: usize = 1024;
/// Slabs whose values are added before the columns' totals are stored, where they do not follow each other in memory.
const ROWS: usize = 8;
/// And where they do, in forward and of half types; else backward, which reads two tensors, takes them one by one.
const ROWS_IN_ORDER: usize = 4;
/// Columns whose totals are at hand for that. Measured: of eight pairs of slabs twice as many are better.
const CHUNK: usize = 16;
const CHUNK_OF_PAIRS: usize = 32;
/// How far ahead memory is asked for where slabs follow each other. (Elsewhere, several streams are enough.)
const AHEAD_BYTES: usize = 8 << 10;
/// Columns of a channel from which they are added up side by side.
const MANY_COLUMNS: usize = 4 * CHUNK;
/// Slabs whose deviations are summed before they are folded into float64.
const RUN: usize = 16 * ROWS;

/// Channel ranges of at most [`COLUMNS`] columns.
#[inline(always)]
fn column_groups(tile: &Tile) -> impl Iterator<Item = (usize, usize)> {
    let step = (COLUMNS / tile.grid.s).max(1);
    let channels = tile.c;
    (0..channels).step_by(step).map(move |c| (c, step.min(channels - c)))
}

/// Repeats one number per channel over its columns.
#[inline(always)]
pub fn spread<A: Copy>(per_channel: impl Iterator<Item = A>, s: usize, out: &mut [A]) {
    for (columns, value) in out.chunks_exact_mut(s).zip(per_channel) {
        columns.fill(value);
    }
}

/// Repeats the K coefficients of every channel over its columns, for which `out` has room; with one column a channel they
/// are used as they are.
#[inline(always)]
pub fn spread_all<'a, A: Copy, const K: usize>(
    channels: &'a [&mut [A]; K],
    s: usize,
    out: &'a mut [A],
) -> [&'a [A]; K] {
    if s == 1 {
        return channels.each_ref().map(|values| &**values);
    }
    let width = out.len() / K;
    for (values, columns) in channels.iter().zip(out.chunks_exact_mut(width.max(1))) {
        spread(values.iter().copied(), s, columns);
    }
    std::array::from_fn(|k| &out[k * width..][..width])
}

/// Sum of a channel's S columns, in float64. MANY: side by side, since additions wait for each other.
#[inline(always)]
fn total<A: Real, const MANY: bool>(columns: &[A]) -> f64 {
    let mut sums = [0.0; CHUNK];
    let (chunks, rest) = if MANY { columns.as_chunks::<CHUNK>() } else { (&[][..], columns) };
    for chunk in chunks {
        for i in 0..CHUNK {
            sums[i] += chunk[i].to_f64();
        }
    }
    let sum = if MANY { sums.into_iter().sum() } else { 0.0 };
    rest.iter().fold(sum, |sum, v| sum + v.to_f64())
}

/// The moments of every channel of step `t` of the tile. One pass, as in `kernels_long::moments`.
#[inline(always)]
pub fn moments<E: Element>(tile: &Tile, x: &[E], t: usize) -> Result<ChannelMoments> {
    let mut all = ChannelMoments::none(tile.c, E::Acc::IS_WIDEST)?;
    all.count = (tile.n * tile.grid.s) as f64;
    for (c, channels) in column_groups(tile) {
        let group = group_moments(tile, x, t, c..c + channels)?;
        all.place(c, &group);
    }
    Ok(all)
}

/// Of the channels of a group.
#[inline(always)]
fn group_moments<E: Element>(
    tile: &Tile,
    x: &[E],
    t: usize,
    channels: Range<usize>,
) -> Result<ChannelMoments> {
    let s = tile.grid.s;
    let in_order = tile.is_contiguous();
    let row_of = |n: usize| &tile.slab(x, t, n)[channels.start * s..channels.end * s];
    let columns = channels.len() * s;
    let mut pivots = workspace::zeros(columns)?;
    let mut sums = workspace::zeros(columns)?;
    let mut squares = workspace::zeros(columns)?;
    let mut part = ChannelMoments::none(channels.len(), E::Acc::IS_WIDEST)?;
    let mut all = ChannelMoments::none(channels.len(), E::Acc::IS_WIDEST)?;
    for first in (0..tile.n).step_by(RUN) {
        let last = (first + RUN).min(tile.n);
        if first == 0 {
            // For want of a mean.
            spread(row_of(0).iter().step_by(s).map(|x| x.load()), s, &mut pivots);
        } else {
            spread(all.mean.iter().map(|&mean| E::Acc::from_f64(mean)), s, &mut pivots);
        }
        sums.fill(0.0);
        squares.fill(E::Acc::default());
        let mut n = first;
        while !in_order && n + ROWS <= last {
            let rows: [&[E]; ROWS] = neighbours(n, row_of);
            add_deviations::<E, ROWS, false>(rows, &pivots, &mut sums, &mut squares);
            n += ROWS;
        }
        while n + ROWS_IN_ORDER <= last {
            let rows: [&[E]; ROWS_IN_ORDER] = neighbours(n, row_of);
            add_deviations::<E, ROWS_IN_ORDER, true>(rows, &pivots, &mut sums, &mut squares);
            n += ROWS_IN_ORDER;
        }
        for n in n..last {
            add_deviations::<E, 1, false>([row_of(n)], &pivots, &mut sums, &mut squares);
        }
        part.count = ((last - first) * s) as f64;
        match s < MANY_COLUMNS {
            true => fold::<_, false>(&pivots, &sums, &squares, s, &mut part),
            false => fold::<_, true>(&pivots, &sums, &squares, s, &mut part),
        }
        // A loop and not `all`: a closure that is not inlined has the baseline's code.
        let mut are_exact = true;
        for ((mean, m2), pivot) in part.mean.iter().zip(&part.m2).zip(pivots.iter().step_by(s)) {
            are_exact &= is_exact::<E::Acc>(part.count, mean - pivot.to_f64(), *m2);
        }
        for i in if are_exact { 0..0 } else { 0..channels.len() } {
            if !is_exact::<E::Acc>(part.count, part.mean[i] - pivots[i * s].to_f64(), part.m2[i]) {
                part.set(i, gathered(tile, x, t, channels.start + i, first..last)?);
            }
        }
        all.merge(&part);
    }
    Ok(all)
}

/// Mean and sum of squares of every channel, of `moments.count` values, from the totals of its columns.
#[inline(always)]
fn fold<A: Real, const MANY: bool>(
    pivots: &[A],
    sums: &[f64],
    squares: &[A],
    s: usize,
    moments: &mut ChannelMoments,
) {
    let (count, inverse) = (moments.count, 1.0 / moments.count);
    let columns = pivots.chunks_exact(s).zip(sums.chunks_exact(s)).zip(squares.chunks_exact(s));
    let cells = moments.mean.iter_mut().zip(&mut moments.m2);
    if A::IS_WIDEST {
        let cells = cells.zip(&mut moments.low);
        for (((mean, m2), low), ((pivots, sums), squares)) in cells.zip(columns) {
            let shift = sums::shift(total::<_, MANY>(sums) * inverse, pivots[0]);
            let cell = sums::moments(count, pivots[0], shift, total::<_, MANY>(squares));
            (*mean, *low, *m2) = (cell.mean, cell.low, cell.m2);
        }
        return;
    }
    for ((mean, m2), ((pivots, sums), squares)) in cells.zip(columns) {
        let pivot = pivots[0].to_f64();
        let shift = total::<_, MANY>(sums) * inverse - pivot;
        let cell = Moments::from_shift(count, pivot, shift, total::<_, MANY>(squares));
        (*mean, *m2) = (cell.mean, cell.m2);
    }
}

/// Rows `n..n + K`.
#[inline(always)]
fn neighbours<'a, E, const K: usize>(n: usize, row_of: impl Fn(usize) -> &'a [E]) -> [&'a [E]; K] {
    let mut rows: [&[E]; K] = [&[]; K];
    for (k, row) in rows.iter_mut().enumerate() {
        *row = row_of(n + k);
    }
    rows
}

/// Adds the values of K slabs and the squares of their deviations to the columns' totals. With AHEAD, asks for what comes
/// [`AHEAD_BYTES`] later. A chunk of totals is copied, added to and written back, since the compiler cannot see that the
/// slabs do not overlap with them.
#[inline(always)]
fn add_deviations<E: Element, const K: usize, const AHEAD: bool>(
    rows: [&[E]; K],
    pivots: &[E::Acc],
    sums: &mut [f64],
    squares: &mut [E::Acc],
) {
    let (pivots, pivots_left) = pivots.as_chunks::<CHUNK>();
    let (sums, sums_left) = sums.as_chunks_mut::<CHUNK>();
    let (squares, squares_left) = squares.as_chunks_mut::<CHUNK>();
    let chunks = chunks_of(rows, pivots.len());
    let (sums, squares) = (&mut sums[..pivots.len()], &mut squares[..pivots.len()]);
    for at in 0..pivots.len() {
        let (pivots, mut sum, mut square) = (pivots[at], sums[at], squares[at]);
        for rows in chunks.chunks(few::<E>()) {
            let rows = rows.iter().map(|row| {
                if AHEAD {
                    prefetch(&row[at], AHEAD_BYTES / size_of::<E>(), CHUNK);
                }
                &row[at]
            });
            sums::add_deviations(rows, &pivots, &mut sum, &mut square);
        }
        (sums[at], squares[at]) = (sum, square);
    }
    for row in rows {
        let left = &row[row.len() - pivots_left.len()..];
        for (((x, pivot), sum), square) in
            left.iter().zip(pivots_left).zip(&mut *sums_left).zip(&mut *squares_left)
        {
            let value = x.load();
            let d = value - *pivot;
            *sum += sums::summand(value, d);
            *square += d * d;
        }
    }
}

/// The rows in chunks, `count` of each: lists of one length, so that one check does for all. (Sums of pairs were slower so.)
#[inline(always)]
fn chunks_of<E, const K: usize>(rows: [&[E]; K], count: usize) -> [&[[E; CHUNK]]; K] {
    let mut chunks: [&[[E; CHUNK]]; K] = [&[]; K];
    for (chunks, row) in chunks.iter_mut().zip(rows) {
        *chunks = &row.as_chunks().0[..count];
    }
    chunks
}

/// `y = (x − high)·a + b`, coefficients per column.
struct Forward<'a, E: Element> {
    x: &'a [E],
    coefficients: [&'a [E::Acc]; 3],
}

impl<E: Element> Fill<E::Acc> for Forward<'_, E> {
    #[inline(always)]
    fn fill(&self, first: usize, out: &mut [E::Acc]) {
        let len = out.len();
        let [high, a, b] = self.coefficients;
        let (high, a, b) = (&high[first..][..len], &a[first..][..len], &b[first..][..len]);
        let x = &self.x[first..][..len];
        for j in 0..len {
            out[j] = E::mul_add(x[j].load() - high[j], a[j], b[j]);
        }
    }
}

#[inline(always)]
pub fn apply<E: Element>(x: &[E], y: &mut [E], coefficients: [&[E::Acc]; 3], streaming: bool) {
    write(y, streaming, Forward { x, coefficients });
}

/// Σ dy and Σ dy·(x − mean) of every channel of step `t`, added to `sums`; in float64, as in
/// `kernels_long::backward_sums`. `means`: per column. EXACT: of half types, from means of 0.
#[inline(always)]
pub fn backward_sums<E: Element, const EXACT: bool>(
    tile: &Tile,
    x: &[E],
    dy: &[E],
    t: usize,
    means: &[f64],
    sums: &mut [[f64; 2]],
) -> Result<()> {
    let s = tile.grid.s;
    let in_order = tile.is_contiguous();
    for (c, channels) in column_groups(tile) {
        let columns = channels * s;
        let means = &means[c * s..][..columns];
        let mut first = workspace::zeros(columns)?;
        let mut second = workspace::zeros(columns)?;
        let pair =
            |n: usize| (&tile.slab(x, t, n)[c * s..][..columns], &tile.slab(dy, t, n)[c * s..][..columns]);
        let mut n = 0;
        while !in_order && n + ROWS <= tile.n {
            let mut pairs: [(&[E], &[E]); ROWS] = [(&[], &[]); ROWS];
            for (k, rows) in pairs.iter_mut().enumerate() {
                *rows = pair(n + k);
            }
            add_products::<E, ROWS, CHUNK_OF_PAIRS, EXACT, false>(pairs, means, &mut first, &mut second);
            n += ROWS;
        }
        while EXACT && n + ROWS_IN_ORDER <= tile.n {
            let pairs: [_; ROWS_IN_ORDER] = std::array::from_fn(|k| pair(n + k));
            add_products::<E, ROWS_IN_ORDER, CHUNK_OF_PAIRS, EXACT, true>(
                pairs,
                means,
                &mut first,
                &mut second,
            );
            n += ROWS_IN_ORDER;
        }
        for n in n..tile.n {
            add_products::<E, 1, CHUNK, EXACT, false>([pair(n)], means, &mut first, &mut second);
        }
        let sums = &mut sums[c..c + channels];
        match s < MANY_COLUMNS {
            true => add_totals::<false>(&first, &second, s, sums),
            false => add_totals::<true>(&first, &second, s, sums),
        }
    }
    Ok(())
}

/// Adds the totals of each channel's columns to its sums.
#[inline(always)]
fn add_totals<const MANY: bool>(first: &[f64], second: &[f64], s: usize, sums: &mut [[f64; 2]]) {
    for ((sums, first), second) in sums.iter_mut().zip(first.chunks_exact(s)).zip(second.chunks_exact(s)) {
        sums[0] += total::<_, MANY>(first);
        sums[1] += total::<_, MANY>(second);
    }
}

/// Adds the products of K pairs of slabs, of x and of dy, to the columns' totals, in chunks of WIDTH as `add_deviations`.
/// AHEAD counts where EXACT does: the wider rows of other types are seen by the prefetchers.
#[inline(always)]
fn add_products<E: Element, const K: usize, const WIDTH: usize, const EXACT: bool, const AHEAD: bool>(
    pairs: [(&[E], &[E]); K],
    means: &[f64],
    first: &mut [f64],
    second: &mut [f64],
) {
    let (means, means_left) = means.as_chunks::<WIDTH>();
    let (first, first_left) = first.as_chunks_mut::<WIDTH>();
    let (second, second_left) = second.as_chunks_mut::<WIDTH>();
    for (at, ((means, first), second)) in means.iter().zip(first).zip(second).enumerate() {
        let (mut s1, mut s2) = (*first, *second);
        if EXACT {
            for rows in pairs.chunks(few::<E>()) {
                let rows = rows.iter().filter_map(|(x, dy)| {
                    let (x, dy) = (&x[at * WIDTH..], &dy[at * WIDTH..]);
                    if AHEAD {
                        prefetch(x, AHEAD_BYTES / size_of::<E>(), WIDTH);
                        prefetch(dy, AHEAD_BYTES / size_of::<E>(), WIDTH);
                    }
                    Some((x.first_chunk::<WIDTH>()?, dy.first_chunk::<WIDTH>()?))
                });
                sums::add_exact_products(rows, &mut s1, &mut s2);
            }
            (*first, *second) = (s1, s2);
            continue;
        }
        for (x, dy) in pairs {
            let (x, dy) = (&x[at * WIDTH..][..WIDTH], &dy[at * WIDTH..][..WIDTH]);
            for i in 0..WIDTH {
                let g = dy[i].load().to_f64();
                s1[i] += g;
                s2[i] += g * (x[i].load().to_f64() - means[i]);
            }
        }
        (*first, *second) = (s1, s2);
    }
    for (x, dy) in pairs {
        let start = x.len() - means_left.len();
        for ((((x, dy), mean), s1), s2) in
            x[start..].iter().zip(&dy[start..]).zip(means_left).zip(&mut *first_left).zip(&mut *second_left)
        {
            let g = dy.load().to_f64();
            *s1 += g;
            *s2 += g * (x.load().to_f64() - mean);
        }
    }
}

/// `dx = g·dy − c1 − (x − high)·c2`, coefficients per column.
struct Backward<'a, E: Element> {
    x: &'a [E],
    dy: &'a [E],
    coefficients: [&'a [E::Acc]; 4],
}

impl<E: Element> Fill<E::Acc> for Backward<'_, E> {
    #[inline(always)]
    fn fill(&self, first: usize, out: &mut [E::Acc]) {
        let len = out.len();
        let [high, g, c1, c2] = self.coefficients;
        let (high, g) = (&high[first..][..len], &g[first..][..len]);
        let (c1, c2) = (&c1[first..][..len], &c2[first..][..len]);
        let (x, dy) = (&self.x[first..][..len], &self.dy[first..][..len]);
        for j in 0..len {
            let gained = E::mul_add(dy[j].load(), g[j], -c1[j]);
            out[j] = E::mul_add(high[j] - x[j].load(), c2[j], gained);
        }
    }
}

#[inline(always)]
pub fn backward_apply<E: Element>(
    x: &[E],
    dy: &[E],
    dx: &mut [E],
    coefficients: [&[E::Acc]; 4],
    streaming: bool,
) {
    write(dx, streaming, Backward { x, dy, coefficients });
}

/// `dx = g·dy`, g per column: running statistics do not depend on x.
struct Scaled<'a, E: Element> {
    dy: &'a [E],
    g: &'a [E::Acc],
}

impl<E: Element> Fill<E::Acc> for Scaled<'_, E> {
    #[inline(always)]
    fn fill(&self, first: usize, out: &mut [E::Acc]) {
        let len = out.len();
        let (dy, g) = (&self.dy[first..][..len], &self.g[first..][..len]);
        for j in 0..len {
            out[j] = dy[j].load() * g[j];
        }
    }
}

#[inline(always)]
pub fn scale<E: Element>(dy: &[E], dx: &mut [E], g: &[E::Acc], streaming: bool) {
    write(dx, streaming, Scaled { dy, g });
}
