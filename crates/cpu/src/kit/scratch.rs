//! Working memory of one task, from the pool, and conversions to the type arithmetic is done in.

use spikenorm_core::Result;

use crate::HostMemory;
use crate::element::{Element, Real};
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

/// Activations in the type arithmetic is done in: borrowed where that is their own.
pub enum Widened<'a, E: Element> {
    Same(&'a [E]),
    Wide(HostMemory, usize),
}

impl<'a, E: Element> Widened<'a, E> {
    pub fn new(values: &'a [E]) -> Result<Self> {
        if E::DTYPE == <E::Acc as Element>::DTYPE {
            return Ok(Self::Same(values));
        }
        let mut memory = HostMemory::take(values.len() * size_of::<E::Acc>())?;
        let wide = &mut memory.as_mut_slice::<E::Acc>()[..values.len()];
        widen(wide, values);
        Ok(Self::Wide(memory, values.len()))
    }

    pub fn with<R>(&self, f: impl FnOnce(&[E::Acc]) -> R) -> Result<R> {
        match self {
            Self::Same(values) => Ok(f(bytemuck::cast_slice(values))),
            Self::Wide(memory, len) => Ok(f(memory.read()?.slice::<E::Acc>(0, *len))),
        }
    }
}

/// Lets `write` fill `out`: in place, or in scratch and rounded once.
pub fn rounded<E: Element>(out: &mut [E], write: impl FnOnce(&mut [E::Acc])) -> Result<()> {
    if E::DTYPE == <E::Acc as Element>::DTYPE {
        write(bytemuck::cast_slice_mut(out));
        return Ok(());
    }
    let mut scratch = Scratch::take::<E::Acc>(&[out.len()])?;
    let [wide] = scratch.split::<E::Acc, 1>([out.len()]);
    write(wide);
    narrow(out, wide);
    Ok(())
}

vectorized! {
    fn widen<'a, E: Element>(wide: &'a mut [E::Acc], values: &'a [E]) {
        for (wide, value) in wide.iter_mut().zip(values) {
            *wide = value.load();
        }
    }
}

vectorized! {
    fn narrow<'a, E: Element>(out: &'a mut [E], wide: &'a [E::Acc]) {
        for (out, wide) in out.iter_mut().zip(wide) {
            *out = E::store(*wide);
        }
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
