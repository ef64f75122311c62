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

    /// Calls `visit(image, padded)` for every row of a sample `[C, H, W]`: where it starts there, and in the padded sample.
    #[inline(always)]
    fn image_rows(&self, mut visit: impl FnMut(usize, usize)) {
        let [height, width] = self.padded();
        let [top, left] = self.window.padding;
        let mut image = 0;
        for c in 0..self.channels {
            for y in 0..self.input[0] {
                visit(image, (c * height + y + top) * width + left);
                image += self.input[1];
            }
        }
    }

    /// Copies a sample `[C, H, W]` into the middle of `padded`, whose border the caller has zeroed.
    #[inline(always)]
    pub fn pad<A: Real>(&self, sample: &[A], padded: &mut [A]) {
        let width = self.input[1];
        self.image_rows(|image, at| padded[at..at + width].copy_from_slice(&sample[image..image + width]));
    }

    /// Copies the middle of `padded` to a sample `[C, H, W]`.
    #[inline(always)]
    pub fn crop<A: Real>(&self, padded: &[A], sample: &mut [A]) {
        let width = self.input[1];
        self.image_rows(|image, at| sample[image..image + width].copy_from_slice(&padded[at..at + width]));
    }

    /// Calls `visit(columns, padded)` for every row of the column matrix: where the block's part of it starts, and what
    /// goes there, from its first value on.
    #[inline(always)]
    fn rows_of(&self, block: Block, mut visit: impl FnMut(usize, usize)) {
        let [height, width] = self.padded();
        let [kernel_h, kernel_w] = self.window.kernel;
        let mut column = block.at;
        for c in 0..self.channels {
            for i in 0..kernel_h {
                for j in 0..kernel_w {
                    visit(column, (c * height + block.first * self.window.stride[0] + i) * width + j);
                    column += block.width;
                }
            }
        }
    }

    /// Pieces of a padded sample, one for each output row, from where the first of them starts.
    #[inline(always)]
    fn pieces<'a, A>(&self, padded: &'a [A]) -> impl Iterator<Item = &'a [A]> + use<'a, A> {
        padded.chunks(self.window.stride[0] * self.padded()[1])
    }

    #[inline(always)]
    fn pieces_mut<'a, A>(&self, padded: &'a mut [A]) -> impl Iterator<Item = &'a mut [A]> + use<'a, A> {
        padded.chunks_mut(self.window.stride[0] * self.padded()[1])
    }

    /// Writes the columns of a block of a padded sample.
    #[inline(always)]
    pub fn unfold<A: Real>(&self, padded: &[A], columns: &mut [A], block: Block) {
        let (run, stride) = (self.output[1], self.window.stride[1]);
        match (stride, run) {
            // A row of known length is a register or two; a copy of any length is a call.
            (1, 4) => self.unfold_runs::<A, 4>(padded, columns, block),
            (1, 8) => self.unfold_runs::<A, 8>(padded, columns, block),
            (1, 16) => self.unfold_runs::<A, 16>(padded, columns, block),
            _ => self.rows_of(block, |to, from| {
                let targets = columns[to..][..block.rows * run].chunks_exact_mut(run);
                for (target, source) in targets.zip(self.pieces(&padded[from..])) {
                    if stride == 1 {
                        target.copy_from_slice(&source[..run]);
                    } else {
                        for (target, value) in target.iter_mut().zip(source.iter().step_by(stride)) {
                            *target = *value;
                        }
                    }
                }
            }),
        }
    }

    #[inline(always)]
    fn unfold_runs<A: Real, const N: usize>(&self, padded: &[A], columns: &mut [A], block: Block) {
        let step = self.window.stride[0] * self.padded()[1];
        self.rows_of(block, |to, mut from| {
            let (targets, _) = columns[to..][..block.rows * N].as_chunks_mut::<N>();
            for target in targets {
                target.copy_from_slice(&padded[from..from + N]);
                from += step;
            }
        });
    }

    /// The transpose of [`Self::unfold`]: adds the columns of a block onto the padded sample.
    #[inline(always)]
    pub fn fold<A: Real>(&self, columns: &[A], padded: &mut [A], block: Block) {
        let (run, stride) = (self.output[1], self.window.stride[1]);
        match (stride, run) {
            (1, 4) => self.fold_runs::<A, 4>(columns, padded, block),
            (1, 8) => self.fold_runs::<A, 8>(columns, padded, block),
            (1, 16) => self.fold_runs::<A, 16>(columns, padded, block),
            _ => self.rows_of(block, |from, to| {
                let sources = columns[from..][..block.rows * run].chunks_exact(run);
                for (source, target) in sources.zip(self.pieces_mut(&mut padded[to..])) {
                    for (target, value) in target.iter_mut().step_by(stride).zip(source) {
                        *target += *value;
                    }
                }
            }),
        }
    }

    #[inline(always)]
    fn fold_runs<A: Real, const N: usize>(&self, columns: &[A], padded: &mut [A], block: Block) {
        self.rows_of(block, |from, to| {
            let (sources, _) = columns[from..][..block.rows * N].as_chunks::<N>();
            for (source, target) in sources.iter().zip(self.pieces_mut(&mut padded[to..])) {
                if let Some(target) = target.first_chunk_mut::<N>() {
                    for lane in 0..N {
                        target[lane] += source[lane];
                    }
                }
            }
        });
    }
}
