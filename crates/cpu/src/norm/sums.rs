//! What is added up for statistics and gradients, of W columns side by side: in float64, since a gradient that is the same
//! everywhere sums what the mean is off by, and gradients of both signs cancel.
//!
//! The digits of half types leave room in a float32: a product of two values is exact there, and so is a sum of a few, but
//! for values far smaller than their neighbours. Only these sums are converted to float64, which would take longer than all
//! else if every value were.

use spikenorm_core::norm::Moments;

use crate::element::{Element, Real};

/// Standard deviations from 0 up to which a mean may be taken off the sum of products instead of off every value.
pub const NEAR: f64 = 16.0;

/// Rows that are handed over together: as many as there are, of half types those that are added up before their sum goes on
/// in float64.
#[inline(always)]
pub fn few<E: Element>() -> usize {
    if E::IS_HALF { 4 } else { usize::MAX }
}

/// What is summed of a value for the mean: of float64, which no type is wider than, the deviation from a pivot near the mean.
#[inline(always)]
pub fn summand<A: Real>(value: A, deviation: A) -> f64 {
    if A::IS_WIDEST { deviation.to_f64() } else { value.to_f64() }
}

/// The mean less the pivot, from the mean of the [`summand`]s.
#[inline(always)]
pub fn shift<A: Real>(mean_summand: f64, pivot: A) -> f64 {
    if A::IS_WIDEST { mean_summand } else { mean_summand - pivot.to_f64() }
}

/// Moments from the mean deviation; see [`Moments::from_shift`].
#[inline(always)]
pub fn moments<A: Real>(count: f64, pivot: A, shift: f64, squares: f64) -> Moments {
    match A::IS_WIDEST {
        true => Moments::in_two_parts(count, pivot.to_f64(), shift, squares),
        false => Moments::from_shift(count, pivot.to_f64(), shift, squares),
    }
}

/// Merges a cell's moments with those of a part.
#[inline(always)]
pub fn merge<A: Real>(cell: &mut Moments, part: Moments) {
    match A::IS_WIDEST {
        true => cell.merge::<true>(part),
        false => cell.merge::<false>(part),
    }
}

/// Adds [`few`] rows' [`summand`]s and the squares of their deviations to the totals of their columns.
#[inline(always)]
pub fn add_deviations<'a, E: Element, const W: usize>(
    rows: impl Iterator<Item = &'a [E; W]>,
    pivots: &[E::Acc; W],
    sums: &mut [f64; W],
    squares: &mut [E::Acc; W],
) {
    if !E::IS_HALF {
        for row in rows {
            for i in 0..W {
                let value = row[i].load();
                let d = value - pivots[i];
                sums[i] += summand(value, d);
                squares[i] += d * d;
            }
        }
        return;
    }
    // Squares of few digits end alike, so that their sum in float32 is rounded the same way again and again: seldom, then.
    let (mut part, mut part_squares) = ([E::Acc::default(); W], [E::Acc::default(); W]);
    for row in rows {
        let row = E::load_block(row);
        for i in 0..W {
            let d = row[i] - pivots[i];
            part[i] += row[i];
            part_squares[i] = E::mul_add(d, d, part_squares[i]);
        }
    }
    for i in 0..W {
        sums[i] += part[i].to_f64();
        squares[i] += part_squares[i];
    }
}

/// Adds Σ dy and Σ dy·x of [`few`] pairs of rows of a half type, of x and of dy, to the totals of their columns. (Of other
/// types `kernels_short` and `kernels_long` add them up themselves: rows as arrays were slower there.)
#[inline(always)]
pub fn add_exact_products<'a, E: Element, const W: usize>(
    pairs: impl Iterator<Item = (&'a [E; W], &'a [E; W])>,
    first: &mut [f64; W],
    second: &mut [f64; W],
) {
    let mut part = [E::Acc::default(); W];
    for (x, dy) in pairs {
        let (x, dy) = (E::load_block(x), E::load_block(dy));
        let mut products = [E::Acc::default(); W];
        for i in 0..W {
            part[i] += dy[i];
            products[i] = x[i] * dy[i];
        }
        // A loop of its own, as its vectors have another width.
        for i in 0..W {
            second[i] += products[i].to_f64();
        }
    }
    for i in 0..W {
        first[i] += part[i].to_f64();
    }
}
