//! Loops for channels with many values in space: one contiguous row per (t, n, c), scalar coefficients.
//! Sums run in 16 independent lanes; those of squares over short runs that are folded into float64, so that their
//! error does not grow with the length of the reduction.

use spikenorm_core::norm::Moments;

use crate::element::{Element, Real};

const LANES: usize = 16;
/// Values summed in the lanes before they are folded: 64 additions a lane, and 4 KB stay in the first-level
/// cache between the two passes of the moments.
const RUN: usize = 1024;

/// Adds up the lanes in float64, in a fixed order.
#[inline(always)]
fn fold<A: Real>(lanes: [A; LANES]) -> f64 {
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

/// Sums a function of every value of `row`, in lanes of type `L`.
#[inline(always)]
fn sum<E: Element, L: Real>(row: &[E], f: impl Fn(E::Acc) -> L) -> f64 {
    let mut lanes = [L::default(); LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += f(x.load());
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += f(x.load());
    }
    fold(lanes)
}

/// Moments of one row: its mean first, summed in float64 where float32 values lose nothing, then the squared
/// deviations from it, both while the run is in cache.
#[inline(always)]
pub fn moments<E: Element>(row: &[E]) -> Moments {
    let mut total = Moments::default();
    for run in row.chunks(RUN) {
        let count = run.len() as f64;
        let first = sum(run, |x| x.to_f64());
        let pivot = E::Acc::from_f64(first / count);
        let squares = sum(run, |x| {
            let d = x - pivot;
            d * d
        });
        total.merge(Moments::from_sums(count, first, pivot.to_f64(), squares));
    }
    total
}

/// `y = ((x − high) − low)·a + b`.
#[inline(always)]
pub fn apply<E: Element>(x: &[E], y: &mut [E], [high, low, a, b]: [E::Acc; 4]) {
    for (x, y) in x.iter().zip(y) {
        *y = E::store(((x.load() - high) - low) * a + b);
    }
}

/// Σ dy and Σ dy·(x − mean) of one row. Gradients of both signs cancel, so they are summed in float64, where
/// products of float32 are exact.
#[inline(always)]
pub fn backward_sums<E: Element>(x: &[E], dy: &[E], mean: f64) -> [f64; 2] {
    let mut lanes = [[0.0; LANES]; 2];
    let mut add = |i: usize, x: E, dy: E| {
        let g = dy.load().to_f64();
        lanes[0][i] += g;
        lanes[1][i] += g * (x.load().to_f64() - mean);
    };
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    let (dy_chunks, dy_rest) = dy.as_chunks::<LANES>();
    for (x, dy) in x_chunks.iter().zip(dy_chunks) {
        for i in 0..LANES {
            add(i, x[i], dy[i]);
        }
    }
    for (i, (x, dy)) in x_rest.iter().zip(dy_rest).enumerate() {
        add(i, *x, *dy);
    }
    lanes.map(fold)
}

/// `dx = g·dy − c1 − ((x − high) − low)·c2`.
#[inline(always)]
pub fn backward_apply<E: Element>(x: &[E], dy: &[E], dx: &mut [E], [high, low, g, c1, c2]: [E::Acc; 5]) {
    for ((x, dy), dx) in x.iter().zip(dy).zip(dx) {
        *dx = E::store(dy.load() * g - c1 - ((x.load() - high) - low) * c2);
    }
}
