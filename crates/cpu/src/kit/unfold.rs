//! Columns of a convolution: each position of the window as one column, so that a convolution is one
//! matrix product. Samples go through a padded copy first, which makes every row of every column matrix a
//! plain copy of a piece of an image row.

use spikenorm_core::kit::{Frames, Window};

use crate::element::Real;

/// Geometry of one sample: image, padded image and columns `[C·kh·kw, positions]`.
#[derive(Clone, Copy, Debug)]
pub struct Unfold {
    pub channels: usize,
    window: Window,
    input: [usize; 2],
    output: [usize; 2],
}

/// Where a block of columns lies: rows `first .. first + rows` of the output, written to columns `at ..` of
/// a matrix with `width` columns.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    pub first: usize,
    pub rows: usize,
    pub at: usize,
    pub width: usize,
}

impl Unfold {
    pub fn new(window: Window, frames: Frames) -> Self {
        Self { channels: frames.channels, window, input: frames.input, output: frames.output }
    }

    /// Rows of the column matrix.
    pub fn rows(&self) -> usize {
        self.channels * self.window.kernel[0] * self.window.kernel[1]
    }

    /// Values of a padded sample.
    pub fn padded_len(&self) -> usize {
        let [height, width] = self.padded();
        self.channels * height * width
    }

    fn padded(&self) -> [usize; 2] {
        [self.input[0] + 2 * self.window.padding[0], self.input[1] + 2 * self.window.padding[1]]
    }

    /// Start of image row `y` of channel `c` in the padded sample.
    #[inline(always)]
    fn interior(&self, c: usize, y: usize) -> usize {
        let [height, width] = self.padded();
        (c * height + y + self.window.padding[0]) * width + self.window.padding[1]
    }

    /// Copies a sample `[C, H, W]` into the middle of `padded`, whose border the caller has zeroed.
    #[inline(always)]
    pub fn pad<A: Real>(&self, sample: &[A], padded: &mut [A]) {
        let [height, width] = self.input;
        for (row, source) in sample.chunks_exact(width).enumerate() {
            let start = self.interior(row / height, row % height);
            padded[start..start + width].copy_from_slice(source);
        }
    }

    /// Copies the middle of `padded` to a sample `[C, H, W]`.
    #[inline(always)]
    pub fn crop<A: Real>(&self, padded: &[A], sample: &mut [A]) {
        let [height, width] = self.input;
        for (row, target) in sample.chunks_exact_mut(width).enumerate() {
            let start = self.interior(row / height, row % height);
            target.copy_from_slice(&padded[start..start + width]);
        }
    }

    /// Calls `visit(column start, padded start)` for every run of one output row.
    #[inline(always)]
    fn runs(&self, block: Block, mut visit: impl FnMut(usize, usize)) {
        let [height, width] = self.padded();
        let [kernel_h, kernel_w] = self.window.kernel;
        let [stride_h, _] = self.window.stride;
        let mut column = block.at;
        for c in 0..self.channels {
            for i in 0..kernel_h {
                for j in 0..kernel_w {
                    let mut source = (c * height + block.first * stride_h + i) * width + j;
                    let mut target = column;
                    for _ in 0..block.rows {
                        visit(target, source);
                        target += self.output[1];
                        source += stride_h * width;
                    }
                    column += block.width;
                }
            }
        }
    }

    /// Writes the columns of a block of a padded sample.
    #[inline(always)]
    pub fn unfold<A: Real>(&self, padded: &[A], columns: &mut [A], block: Block) {
        let (run, stride) = (self.output[1], self.window.stride[1]);
        match (stride, run) {
            // A row of known length is a register or two; a copy of any length is a call.
            (1, 4) => self.runs(block, |to, from| copy_run::<A, 4>(columns, to, padded, from)),
            (1, 8) => self.runs(block, |to, from| copy_run::<A, 8>(columns, to, padded, from)),
            (1, 16) => self.runs(block, |to, from| copy_run::<A, 16>(columns, to, padded, from)),
            (1, _) => {
                self.runs(block, |to, from| columns[to..to + run].copy_from_slice(&padded[from..from + run]))
            }
            _ => self.runs(block, |to, from| {
                for (target, value) in
                    columns[to..to + run].iter_mut().zip(padded[from..].iter().step_by(stride))
                {
                    *target = *value;
                }
            }),
        }
    }

    /// The transpose of [`Self::unfold`]: adds the columns of a block onto the padded sample.
    #[inline(always)]
    pub fn fold<A: Real>(&self, columns: &[A], padded: &mut [A], block: Block) {
        let (run, stride) = (self.output[1], self.window.stride[1]);
        match (stride, run) {
            (1, 4) => self.runs(block, |from, to| add_run::<A, 4>(padded, to, columns, from)),
            (1, 8) => self.runs(block, |from, to| add_run::<A, 8>(padded, to, columns, from)),
            (1, 16) => self.runs(block, |from, to| add_run::<A, 16>(padded, to, columns, from)),
            (1, _) => self.runs(block, |from, to| {
                for (target, value) in padded[to..to + run].iter_mut().zip(&columns[from..from + run]) {
                    *target += *value;
                }
            }),
            _ => self.runs(block, |from, to| {
                for (target, value) in padded[to..].iter_mut().step_by(stride).zip(&columns[from..from + run])
                {
                    *target += *value;
                }
            }),
        }
    }
}

#[inline(always)]
fn copy_run<A: Real, const N: usize>(target: &mut [A], to: usize, source: &[A], from: usize) {
    if let (Some(target), Some(source)) =
        (target[to..].first_chunk_mut::<N>(), source[from..].first_chunk::<N>())
    {
        *target = *source;
    }
}

#[inline(always)]
fn add_run<A: Real, const N: usize>(target: &mut [A], to: usize, source: &[A], from: usize) {
    if let (Some(target), Some(source)) =
        (target[to..].first_chunk_mut::<N>(), source[from..].first_chunk::<N>())
    {
        for lane in 0..N {
            target[lane] += source[lane];
        }
    }
}
