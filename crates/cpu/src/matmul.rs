//! Matrix products, by the gemm crate on the calling thread: tasks around it are what is parallel, so
//! that the order of sums depends on shapes alone.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};

use gemm::Parallelism;
use gemm_common::cache::CACHE_INFO;
use gemm_common::gemm::{CACHELINE_ALIGN, L2_SLAB};
use spikenorm_core::{Result, workspace};

use crate::element::Real;

/// A matrix in a slice, element (i, j) at `i·row_stride + j·col_stride`.
#[derive(Clone, Copy)]
pub struct Matrix<'a, A> {
    data: &'a [A],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, A: Real> Matrix<'a, A> {
    /// `data` row by row.
    pub fn new(data: &'a [A], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a {rows} by {cols} matrix");
        Self::strided(data, rows, cols, cols)
    }

    /// A row every `stride` values.
    pub fn strided(data: &'a [A], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(holds(data, rows, cols, stride), "{rows} rows of {cols}, {stride} apart");
        Self { data, rows, cols, row_stride: stride, col_stride: 1 }
    }

    pub fn rows(self) -> usize {
        self.rows
    }

    pub fn transposed(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

/// A matrix to be written, each row in order.
pub struct MatrixMut<'a, A> {
    data: &'a mut [A],
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a, A: Real> MatrixMut<'a, A> {
    pub fn new(data: &'a mut [A], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a {rows} by {cols} matrix");
        Self::strided(data, rows, cols, cols)
    }

    /// A row every `stride` values.
    pub fn strided(data: &'a mut [A], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(holds(data, rows, cols, stride), "{rows} rows of {cols}, {stride} apart");
        Self { data, rows, cols, stride }
    }

    /// The rows, of `cols` values each.
    pub fn rows_mut(&mut self) -> impl Iterator<Item = &mut [A]> {
        let cols = self.cols;
        self.data.chunks_mut(self.stride.max(1)).take(self.rows).map(move |row| &mut row[..cols])
    }
}

fn holds<A>(data: &[A], rows: usize, cols: usize, stride: usize) -> bool {
    cols <= stride && (rows == 0 || cols == 0 || data.len() >= (rows - 1) * stride + cols)
}

/// `out = a·b`, or `out += a·b`.
pub fn multiply<A: Real>(
    mut out: MatrixMut<'_, A>,
    a: Matrix<'_, A>,
    b: Matrix<'_, A>,
    accumulate: bool,
) -> Result<()> {
    assert_eq!((out.rows, out.cols), (a.rows, b.cols), "the product's size");
    assert_eq!(a.cols, b.rows, "the factors' common extent");
    if a.cols == 0 && !accumulate {
        out.rows_mut().for_each(|row| row.fill(A::default()));
    }
    if out.rows == 0 || out.cols == 0 || a.cols == 0 {
        return Ok(());
    }
    expect_room_to_pack::<A>(a.rows, b.cols, a.cols)?;
    let one = A::from_f64(1.0);
    // SAFETY: each pointer comes with extents and strides that stay within its slice (asserted in `strided` and above; rows
    // and columns exchanged together reach the same elements), `out` is borrowed mutably and so does not overlap the
    // factors, and A is f32 or f64 (the only implementations of Real), which gemm knows.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            out.data.as_mut_ptr(),
            1,
            out.stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            one,
            one,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
    Ok(())
}

/// Values of a row of a factor that gemm packs at a time, at most.
const PACKED_DEPTH: usize = 512;
/// What it packs fits into a last-level cache.
const PACKED_BYTES: usize = 32 << 20;

static MAKING_BUFFERS: Mutex<()> = Mutex::new(());

thread_local! {
    /// Whether gemm has the buffer that it keeps for each thread.
    static HAS_BUFFER: Cell<bool> = const { Cell::new(false) };
}

/// The gemm crate allocates what it packs factors into itself, and ends the process where it cannot: so it is tried before.
fn expect_room_to_pack<A>(m: usize, n: usize, k: usize) -> Result<()> {
    if !HAS_BUFFER.get() {
        // One thread after the other: what one has tried, another must not take.
        let _making = MAKING_BUFFERS.lock().unwrap_or_else(PoisonError::into_inner);
        workspace::expect_room(CACHE_INFO[1].cache_bytes + CACHELINE_ALIGN)?;
        L2_SLAB.with(|_| HAS_BUFFER.set(true));
    }
    let bytes = (m + n).saturating_mul(k.min(PACKED_DEPTH)).saturating_mul(size_of::<A>());
    workspace::expect_room(bytes.min(PACKED_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(i: usize) -> f64 {
        ((i * 7919 + 13) % 101) as f64 / 50.0 - 1.0
    }

    proptest! {
        #[test]
        fn products_equal_the_naive_sum_whatever_is_transposed_or_strided(
            m in 0usize..40, n in 0usize..40, k in 0usize..40, gap in 0usize..3, flags in 0u8..8,
        ) {
            let (ta, tb, accumulate) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
            let (a_rows, a_cols) = if ta { (k, m + gap) } else { (m, k + gap) };
            let (b_rows, b_cols) = if tb { (n, k + gap) } else { (k, n + gap) };
            let a: Vec<f64> = (0..a_rows * a_cols).map(value).collect();
            let b: Vec<f64> = (0..b_rows * b_cols).map(|i| value(i + 5)).collect();
            let left = if ta {
                Matrix::strided(&a, k, m, a_cols).transposed()
            } else {
                Matrix::strided(&a, m, k, a_cols)
            };
            let right = if tb {
                Matrix::strided(&b, n, k, b_cols).transposed()
            } else {
                Matrix::strided(&b, k, n, b_cols)
            };
            let start: Vec<f64> = (0..m * (n + gap)).map(|i| value(i + 9)).collect();
            let mut out = start.clone();
            multiply(MatrixMut::strided(&mut out, m, n, n + gap), left, right, accumulate).expect("memory");
            for i in 0..m {
                for j in 0..n + gap {
                    let at_a = |p: usize| if ta { a[p * a_cols + i] } else { a[i * a_cols + p] };
                    let at_b = |p: usize| if tb { b[j * b_cols + p] } else { b[p * b_cols + j] };
                    let sum = || (0..k).map(|p| at_a(p) * at_b(p)).sum::<f64>();
                    let before = start[i * (n + gap) + j];
                    let want = match j < n {
                        true => sum() + if accumulate { before } else { 0.0 },
                        false => before,
                    };
                    prop_assert!((out[i * (n + gap) + j] - want).abs() < 1e-13 * (k + 1) as f64);
                }
            }
        }
    }
}
