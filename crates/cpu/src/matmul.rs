//! Matrix products, by the gemm crate on the calling thread: tasks around it are what is parallel, so
//! that the order of sums depends on shapes alone.
#![allow(unsafe_code)]

use gemm::Parallelism;

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
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
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

/// `out = a·b`, or `out += a·b`; `out` is row by row.
pub fn multiply<A: Real>(out: &mut [A], a: Matrix<'_, A>, b: Matrix<'_, A>, accumulate: bool) {
    assert_eq!(out.len(), a.rows * b.cols, "the product's size");
    assert_eq!(a.cols, b.rows, "the factors' common extent");
    if a.cols == 0 && !accumulate {
        out.fill(A::default());
    }
    if out.is_empty() || a.cols == 0 {
        return;
    }
    let one = A::from_f64(1.0);
    // SAFETY: each pointer comes with the extents and strides of a slice that covers exactly
    // rows·cols elements (asserted in `Matrix::new` and above), `out` is borrowed mutably and so does not
    // overlap the factors, and A is f32 or f64 (the only implementations of Real), which gemm knows.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            out.as_mut_ptr(),
            1,
            b.cols as isize,
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
        fn products_equal_the_naive_sum_whatever_is_transposed(
            m in 0usize..40, n in 0usize..40, k in 0usize..40, flags in 0u8..8,
        ) {
            let (ta, tb, accumulate) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
            let a: Vec<f64> = (0..m * k).map(value).collect();
            let b: Vec<f64> = (0..k * n).map(|i| value(i + 5)).collect();
            let left = if ta { Matrix::new(&a, k, m).transposed() } else { Matrix::new(&a, m, k) };
            let right = if tb { Matrix::new(&b, n, k).transposed() } else { Matrix::new(&b, k, n) };
            let start: Vec<f64> = (0..m * n).map(|i| value(i + 9)).collect();
            let mut out = start.clone();
            multiply(&mut out, left, right, accumulate);
            for i in 0..m {
                for j in 0..n {
                    let at_a = |p: usize| if ta { a[p * m + i] } else { a[i * k + p] };
                    let at_b = |p: usize| if tb { b[j * k + p] } else { b[p * n + j] };
                    let sum: f64 = (0..k).map(|p| at_a(p) * at_b(p)).sum();
                    let want = sum + if accumulate { start[i * n + j] } else { 0.0 };
                    prop_assert!((out[i * n + j] - want).abs() < 1e-13 * (k + 1) as f64);
                }
            }
        }
    }
}
