//! How memory is walked. Writing results: half types rounded in registers, and streaming stores, which write a large result
//! past the caches. Reading: lines asked for before they are needed.
//!
//! An ordinary store first reads the line it is about to overwrite, and pushes out of the cache what the sums have just
//! brought there. For a result too large to be found in the cache by whoever reads it next, that is a third more
//! traffic for nothing. x86-64 has had streaming stores since SSE2; elsewhere these functions store as usual.
#![allow(unsafe_code)]

use crate::block::Line;
use crate::element::{BLOCK, Element};

/// Bytes of a result from which it is streamed. Below, the next layer finds it in a last-level cache.
pub const STREAMING_BYTES: usize = 16 << 20;

/// Computes a contiguous piece of a result. A trait and not a closure, since closures are not inlined for certain, and
/// then keep the baseline's instructions (see `vectorized!`).
pub trait Fill<A> {
    /// Computes values `first..first + out.len()` of the piece.
    fn fill(&self, first: usize, out: &mut [A]);
}

/// Writes a piece of a result, streaming its whole cache lines where asked. Callers [`fence`] before they are done.
#[inline(always)]
pub fn write<E: Element>(out: &mut [E], streaming: bool, piece: impl Fill<E::Acc>) {
    if !streaming {
        if !E::IS_HALF {
            return piece.fill(0, bytemuck::cast_slice_mut(out));
        }
        let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
        let mut first = 0;
        for block in blocks {
            round_block(block, first, &piece);
            first += BLOCK;
        }
        return round_few(rest, first, &piece);
    }
    let (head, lines, tail) = bytemuck::pod_align_to_mut::<E, Line>(out);
    let mut first = head.len();
    round_few(head, 0, &piece);
    for line in lines {
        let mut values = E::Packed::default();
        if !E::IS_HALF {
            piece.fill(first, bytemuck::cast_slice_mut(values.as_mut()));
        } else if let [block] = values.as_mut().as_chunks_mut::<BLOCK>().0 {
            round_block(block, first, &piece);
        }
        store(line, bytemuck::cast(values));
        first += values.as_ref().len();
    }
    round_few(tail, first, &piece);
}

/// Computes values of a half type in registers, from where they are rounded.
#[inline(always)]
fn round_block<E: Element>(block: &mut [E; BLOCK], first: usize, piece: &impl Fill<E::Acc>) {
    let mut wide = [E::Acc::default(); BLOCK];
    piece.fill(first, &mut wide);
    E::store_block(&wide, block);
}

/// Less than a block.
#[inline(always)]
fn round_few<E: Element>(out: &mut [E], first: usize, piece: &impl Fill<E::Acc>) {
    if !E::IS_HALF {
        return piece.fill(first, bytemuck::cast_slice_mut(out));
    }
    let mut wide = [E::Acc::default(); BLOCK];
    let wide = &mut wide[..out.len()];
    piece.fill(first, wide);
    for (out, wide) in out.iter_mut().zip(wide) {
        *out = E::store(*wide);
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn store(target: &mut Line, value: Line) {
    use std::arch::x86_64::{__m128i, _mm_stream_si128};
    let parts: [__m128i; 4] = bytemuck::cast(value);
    let target = std::ptr::from_mut(target).cast::<__m128i>();
    for (i, part) in parts.into_iter().enumerate() {
        // SAFETY: SSE2 belongs to x86-64. The four parts are the 64 bytes of `target`, which is borrowed exclusively and
        // aligned to 64. Streaming stores are ordered by `fence`, which every task calls before it ends, so before
        // another thread may look at what it wrote; this thread sees its own stores in order.
        unsafe { _mm_stream_si128(target.add(i), part) };
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn store(target: &mut Line, value: Line) {
    *target = value;
}

/// Makes streamed stores visible to other threads. Every task that has streamed ends with it.
#[inline(always)]
pub fn fence(streaming: bool) {
    #[cfg(target_arch = "x86_64")]
    if streaming {
        // SAFETY: SSE belongs to x86-64; the instruction has no operands.
        unsafe { std::arch::x86_64::_mm_sfence() };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = streaming;
}

/// Asks for the cache lines of `values` elements, `ahead` elements after the start of `data`. They need not belong to it:
/// nothing is read but by the cache.
///
/// Prefetchers follow a stream within a page of 4 KB and need some lines to see it, so short rows find them asleep.
#[inline(always)]
pub fn prefetch<E>(data: &[E], ahead: usize, values: usize) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..values).step_by(size_of::<Line>() / size_of::<E>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let line = data.as_ptr().wrapping_add(ahead + at);
        // SAFETY: SSE belongs to x86-64. A prefetch of an address that is not mapped does nothing, and of one that is,
        // nothing that a program could see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (data, ahead, values);
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Count(f32);

    impl Fill<f32> for Count {
        fn fill(&self, first: usize, out: &mut [f32]) {
            for (i, out) in out.iter_mut().enumerate() {
                *out = self.0 + (first + i) as f32;
            }
        }
    }

    #[test]
    fn streamed_pieces_of_any_length_and_alignment_hold_what_plain_stores_write() {
        let mut lines = vec![bytemuck::Zeroable::zeroed(); 20];
        let buffer: &mut [f32] = bytemuck::cast_slice_mut::<Line, f32>(&mut lines);
        for start in 0..20 {
            for len in [0, 1, 15, 16, 17, 31, 32, 33, 100, 256] {
                buffer.fill(-1.0);
                write(&mut buffer[start..start + len], true, Count(5.0));
                fence(true);
                for (i, &value) in buffer.iter().enumerate() {
                    let inside = (start..start + len).contains(&i);
                    assert_eq!(
                        value,
                        if inside { 5.0 + (i - start) as f32 } else { -1.0 },
                        "{start} {len} {i}"
                    );
                }
            }
        }
    }
}
