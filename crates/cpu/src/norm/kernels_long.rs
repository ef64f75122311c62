//! Loops for channels with many values in space: one contiguous row per (t, n, c), scalar coefficients.
//!
//! Sums run in lanes, short runs of squared deviations in the type of the arithmetic. What adds up over more is float64, and
//! so are all sums of values: a gradient that is the same everywhere sums what the mean is off by.

use spikenorm_core::norm::{ChannelMoments, Moments};
use spikenorm_core::{Result, workspace};

use super::sums::{self, few};
use super::tile::Tile;
use crate::element::{Element, Real};
use crate::stream::{Fill, prefetch, write};

/// Lanes of a sum. With 16, the compiler unrolls the loop over them and then no longer sees the vectors in it: four times
/// slower.
const LANES: usize = 32;
/// Values whose deviations are summed before they are folded into float64: 128 additions a lane, short enough to be read
/// again from the cache should that be needed.
const RUN: usize = 128 * LANES;
/// How far ahead memory is asked for: prefetchers stop where a page ends. (Backward of whole types reads two streams and
/// computes longer; it was no faster so.)
const AHEAD_BYTES: usize = 2 << 10;
/// Deviations of the mean from the pivot, in standard deviations, up to which one pass is exact enough: (1 + 4²) roundings
/// of float32, averaged over the run.
const FAR: f64 = 4.0;

/// Adds up the lanes in float64, in a fixed order.
#[inline(always)]
fn fold<A: Real>(lanes: &[A; LANES]) -> f64 {
    let mut wide = lanes.map(A::to_f64);
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            wide[i] += wide[i + half];
        }
        half /= 2;
    }
    wide[0]
}

/// Σ x and Σ d² of deviations d = x − pivot, in lanes.
#[derive(Clone, Copy)]
struct Deviations<A> {
    pivot: A,
    sums: [f64; LANES],
    squares: [A; LANES],
}

impl<A: Real> Deviations<A> {
    #[inline(always)]
    fn from(pivot: A) -> Self {
        Self { pivot, sums: [0.0; LANES], squares: [A::default(); LANES] }
    }

    #[inline(always)]
    fn add<E: Element<Acc = A>>(&mut self, run: &[E]) {
        let Self { pivot, mut sums, mut squares } = *self;
        let (chunks, rest) = run.as_chunks::<LANES>();
        for rows in chunks.chunks(few::<E>()) {
            let rows = rows.iter().inspect(|row| prefetch(*row, AHEAD_BYTES / size_of::<E>(), LANES));
            sums::add_deviations(rows, &[pivot; LANES], &mut sums, &mut squares);
        }
        for (i, x) in rest.iter().enumerate() {
            let value = x.load();
            let d = value - pivot;
            sums[i] += sums::summand(value, d);
            squares[i] += d * d;
        }
        *self = Self { pivot, sums, squares };
    }

    /// Moments of the `count` values added; `None` where the pivot was too far from their mean for one pass to be exact,
    /// or something is not finite.
    #[inline(always)]
    fn moments(&self, count: f64) -> Option<Moments> {
        let shift = sums::shift(fold(&self.sums) / count, self.pivot);
        let part = sums::moments(count, self.pivot, shift, fold(&self.squares));
        is_exact::<A>(count, shift, part.m2).then_some(part)
    }
}

/// Whether one pass was exact: the pivot near enough to the mean of `count` values, `shift` away, and squares within the
/// range of their type; not where something is not finite.
#[inline(always)]
pub fn is_exact<A: Real>(count: f64, shift: f64, m2: f64) -> bool {
    // All of it, without branches: of many channels side by side.
    (shift * shift * count <= FAR * FAR * m2) & in_range::<A>(count, m2)
}

/// Whether squares summed in A have neither overflowed nor lost digits below its normal numbers.
#[inline(always)]
fn in_range<A: Real>(count: f64, m2: f64) -> bool {
    (m2 == 0.0) | ((m2 >= count * A::LEAST_SQUARE) & (m2 < f64::INFINITY))
}

/// A value near the mean of what comes next: the mean of what the cell has seen, or the next value itself.
#[inline(always)]
fn pivot_of<E: Element>(cell: &Moments, next: E) -> E::Acc {
    if cell.count > 0.0 { E::Acc::from_f64(cell.mean) } else { next.load() }
}

/// The moments of every channel of step `t` of the tile.
///
/// One pass: deviations from a pivot near the mean. Where that turns out to be far off, the run is read again from the
/// cache: its mean first, then the squares about it.
#[inline(always)]
pub fn moments<E: Element>(tile: &Tile, x: &[E], t: usize) -> Result<ChannelMoments> {
    let s = tile.grid.s;
    let mut cells = workspace::zeros(tile.c)?;
    if s > RUN {
        for n in 0..tile.n {
            let rows = tile.slab(x, t, n).chunks_exact(s);
            for (cell, row) in cells.iter_mut().zip(rows) {
                for run in row.chunks(RUN) {
                    let mut deviations = Deviations::from(pivot_of(cell, run[0]));
                    deviations.add(run);
                    let part = deviations.moments(run.len() as f64);
                    sums::merge::<E::Acc>(cell, part.unwrap_or_else(|| two_passes(run)));
                }
            }
        }
        return ChannelMoments::of(&cells, E::Acc::IS_WIDEST);
    }
    // Lanes go on from row to row: folding them costs as much as a short row.
    let mut lanes = workspace::with_capacity(tile.c)?;
    for first in (0..tile.n).step_by(RUN / s) {
        let last = (first + RUN / s).min(tile.n);
        let start = tile.slab(x, t, first);
        lanes.clear();
        lanes.extend((0..tile.c).map(|c| Deviations::from(pivot_of(&cells[c], start[c * s]))));
        for n in first..last {
            for (lanes, row) in lanes.iter_mut().zip(tile.slab(x, t, n).chunks_exact(s)) {
                lanes.add(row);
            }
        }
        for (c, lanes) in lanes.iter().enumerate() {
            let part = lanes.moments(((last - first) * s) as f64);
            let part = match part {
                Some(part) => part,
                None => gathered(tile, x, t, c, first..last)?,
            };
            sums::merge::<E::Acc>(&mut cells[c], part);
        }
    }
    ChannelMoments::of(&cells, E::Acc::IS_WIDEST)
}

/// The moments of one channel of some samples, the careful way.
#[cold]
#[inline(never)]
pub fn gathered<E: Element>(
    tile: &Tile,
    x: &[E],
    t: usize,
    c: usize,
    samples: std::ops::Range<usize>,
) -> Result<Moments> {
    let s = tile.grid.s;
    let mut values = workspace::with_capacity(samples.len() * s)?;
    for n in samples {
        values.extend_from_slice(&tile.slab(x, t, n)[c * s..][..s]);
    }
    Ok(two_passes(&values))
}

/// Rare, so kept out of the loop's code.
#[cold]
#[inline(never)]
fn two_passes<E: Element>(run: &[E]) -> Moments {
    let count = run.len() as f64;
    let sum = run.iter().fold(0.0, |sum, x| sum + x.load().to_f64());
    let mean = sum / count;
    if !mean.is_finite() {
        // It stays what it is.
        return Moments { count, mean, low: 0.0, m2: f64::NAN };
    }
    let mut total = Moments::default();
    for run in run.chunks(RUN) {
        let mut about_mean = Deviations::from(E::Acc::from_f64(mean));
        about_mean.add(run);
        let (count, pivot) = (run.len() as f64, about_mean.pivot);
        let shift = match E::Acc::IS_WIDEST {
            true => fold(&about_mean.sums) / count,
            false => (fold(&about_mean.sums) - count * pivot.to_f64()) / count,
        };
        sums::merge::<E::Acc>(&mut total, sums::moments(count, pivot, shift, fold(&about_mean.squares)));
    }
    if !in_range::<E::Acc>(count, total.m2) {
        let square = |x: &E| (x.load().to_f64() - mean).powi(2);
        return Moments { m2: run.iter().map(square).sum(), ..total };
    }
    total
}

/// `y = (x − high)·a + b`, where b has taken up the low part of the mean.
struct Forward<'a, E: Element> {
    x: &'a [E],
    coefficients: [E::Acc; 3],
}

impl<E: Element> Fill<E::Acc> for Forward<'_, E> {
    #[inline(always)]
    fn fill(&self, first: usize, out: &mut [E::Acc]) {
        let [high, a, b] = self.coefficients;
        let x = &self.x[first..][..out.len()];
        for (y, x) in out.iter_mut().zip(x) {
            *y = E::mul_add(x.load() - high, a, b);
        }
    }
}

#[inline(always)]
pub fn apply<E: Element>(x: &[E], y: &mut [E], coefficients: [E::Acc; 3], streaming: bool) {
    write(y, streaming, Forward { x, coefficients });
}

/// Σ dy and Σ dy·(x − mean) of every channel of step `t` of the tile, added to `sums`. Gradients of both signs cancel, so
/// they are summed in float64, where products of float32 are exact. EXACT: of half types, from means of 0.
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
    let mut lanes = workspace::zeros(tile.c)?;
    for n in 0..tile.n {
        let rows = tile.slab(x, t, n).chunks_exact(s).zip(tile.slab(dy, t, n).chunks_exact(s));
        for (c, (x, dy)) in rows.enumerate() {
            add_products::<E, EXACT>(x, dy, means[c], &mut lanes[c]);
        }
    }
    for (sums, [first, second]) in sums.iter_mut().zip(&lanes) {
        sums[0] += fold(first);
        sums[1] += fold(second);
    }
    Ok(())
}

#[inline(always)]
fn add_products<E: Element, const EXACT: bool>(x: &[E], dy: &[E], mean: f64, lanes: &mut [[f64; LANES]; 2]) {
    let [mut first, mut second] = *lanes;
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    let (dy_chunks, dy_rest) = dy.as_chunks::<LANES>();
    if EXACT {
        for (x, dy) in x_chunks.chunks(few::<E>()).zip(dy_chunks.chunks(few::<E>())) {
            let pairs = x.iter().zip(dy).inspect(|(x, dy)| {
                prefetch(*x, AHEAD_BYTES / size_of::<E>(), LANES);
                prefetch(*dy, AHEAD_BYTES / size_of::<E>(), LANES);
            });
            sums::add_exact_products(pairs, &mut first, &mut second);
        }
    } else {
        for (x, dy) in x_chunks.iter().zip(dy_chunks) {
            for i in 0..LANES {
                let g = dy[i].load().to_f64();
                first[i] += g;
                second[i] += g * (x[i].load().to_f64() - mean);
            }
        }
    }
    for (i, (x, dy)) in x_rest.iter().zip(dy_rest).enumerate() {
        let g = dy.load().to_f64();
        first[i] += g;
        second[i] += g * (x.load().to_f64() - mean);
    }
    *lanes = [first, second];
}

/// `dx = g·dy − c1 − (x − high)·c2`, where c1 has taken up the low part of the mean.
struct Backward<'a, E: Element> {
    x: &'a [E],
    dy: &'a [E],
    coefficients: [E::Acc; 4],
}

impl<E: Element> Fill<E::Acc> for Backward<'_, E> {
    #[inline(always)]
    fn fill(&self, first: usize, out: &mut [E::Acc]) {
        let [high, g, c1, c2] = self.coefficients;
        let (x, dy) = (&self.x[first..][..out.len()], &self.dy[first..][..out.len()]);
        for ((dx, x), dy) in out.iter_mut().zip(x).zip(dy) {
            let gained = E::mul_add(dy.load(), g, -c1);
            *dx = E::mul_add(high - x.load(), c2, gained);
        }
    }
}

#[inline(always)]
pub fn backward_apply<E: Element>(
    x: &[E],
    dy: &[E],
    dx: &mut [E],
    coefficients: [E::Acc; 4],
    streaming: bool,
) {
    write(dx, streaming, Backward { x, dy, coefficients });
}

/// `dx = g·dy`: running statistics do not depend on x.
struct Scaled<'a, E: Element> {
    dy: &'a [E],
    g: E::Acc,
}

impl<E: Element> Fill<E::Acc> for Scaled<'_, E> {
    #[inline(always)]
    fn fill(&self, first: usize, out: &mut [E::Acc]) {
        for (dx, dy) in out.iter_mut().zip(&self.dy[first..]) {
            *dx = dy.load() * self.g;
        }
    }
}

#[inline(always)]
pub fn scale<E: Element>(dy: &[E], dx: &mut [E], g: E::Acc, streaming: bool) {
    write(dx, streaming, Scaled { dy, g });
}
