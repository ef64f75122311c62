//! Working memory of one task, from the pool, and sums.

use spikenorm_core::Result;

use crate::HostMemory;
use crate::element::Real;
use crate::simd::vectorized;

pub struct Scratch(HostMemory);

impl Scratch {
    /// Room for arrays of the given lengths, with unspecified values.
    pub fn take<A: Real>(lengths: &[usize]) -> Result<Self> {
        let total: usize = lengths.iter().sum();
        HostMemory::take(total * size_of::<A>()).map(Self)
    }

    /// The arrays, one after the other.
    pub fn split<A: Real, const N: usize>(&mut self, lengths: [usize; N]) -> [&mut [A]; N] {
        let mut rest = self.0.as_mut_slice::<A>();
        lengths.map(|length| {
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(length);
            rest = tail;
            part
        })
    }
}

vectorized! {
    /// [`sum`], to be called from outside a vectorised function.
    pub fn row_sum<'a, A: Real>(row: &'a [A]) -> f64 {
        sum(row)
    }
}

/// Σ of a row: in lanes, so that it vectorises in a fixed order, then in float64.
#[inline(always)]
pub fn sum<A: Real>(row: &[A]) -> f64 {
    const LANES: usize = 16;
    let mut lanes = [A::default(); LANES];
    let mut chunks = row.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += *value;
        }
    }
    let tail: f64 = chunks.remainder().iter().map(|value| value.to_f64()).sum();
    lanes.iter().map(|lane| lane.to_f64()).sum::<f64>() + tail
}
