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
        self.image_rows(|image, at| copy_row(&mut padded[at..at + width], &sample[image..image + width]));
    }

    /// Copies the middle of `padded` to a sample `[C, H, W]`.
    #[inline(always)]
    pub fn crop<A: Real>(&self, padded: &[A], sample: &mut [A]) {
        let width = self.input[1];
        self.image_rows(|image, at| copy_row(&mut sample[image..image + width], &padded[at..at + width]));
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
    fn pieces_mut<'a, A>(&self, padded: &'a mut [A]) -> impl Iterator<Item = &'a mut [A]> + use<'a, A> {
        padded.chunks_mut(self.window.stride[0] * self.padded()[1])
    }

    /// Writes the columns of a block of a padded sample.
    #[inline(always)]
    pub fn unfold<A: Real>(&self, padded: &[A], columns: &mut [A], block: Block) {
        let (run, stride) = (self.output[1], self.window.stride[1]);
        match (stride, run) {
            // Where the length is known outside the loops, they are a fifth faster than with `copy_row`'s question in them.
            (1, 4) => self
                .unfold_runs(padded, columns, block, 4, |target, source| copy_known::<A, 4>(target, source)),
            (1, 8) => self
                .unfold_runs(padded, columns, block, 8, |target, source| copy_known::<A, 8>(target, source)),
            (1, 16) => self.unfold_runs(padded, columns, block, 16, |target, source| {
                copy_known::<A, 16>(target, source)
            }),
            (1, _) => self
                .unfold_runs(padded, columns, block, run, |target, source| copy_row(target, &source[..run])),
            _ => self.unfold_runs(padded, columns, block, run, |target, source| {
                for (target, value) in target.iter_mut().zip(source.iter().step_by(stride)) {
                    *target = *value;
                }
            }),
        }
    }

    /// Calls `copy(columns, padded)` for every run of an output row: what to write, and what begins with the values for it.
    #[inline(always)]
    fn unfold_runs<A: Real>(
        &self,
        padded: &[A],
        columns: &mut [A],
        block: Block,
        run: usize,
        copy: impl Fn(&mut [A], &[A]),
    ) {
        let step = self.window.stride[0] * self.padded()[1];
        self.rows_of(block, |to, mut from| {
            for target in columns[to..][..block.rows * run].chunks_exact_mut(run) {
                copy(target, &padded[from..]);
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

/// A copy of any length is a call, which takes longer than the row of a small image. Of known length it is a register or
/// two: here the first ones and the last ones, which may overlap.
#[inline(always)]
fn copy_row<A: Real>(target: &mut [A], source: &[A]) {
    match target.len() {
        4..8 => copy_ends::<A, 4>(target, source),
        8..16 => copy_ends::<A, 8>(target, source),
        16..=32 => copy_ends::<A, 16>(target, source),
        _ => target.copy_from_slice(source),
    }
}

#[inline(always)]
fn copy_ends<A: Real, const N: usize>(target: &mut [A], source: &[A]) {
    let last = target.len() - N;
    copy_known::<A, N>(target, source);
    copy_known::<A, N>(&mut target[last..], &source[last..]);
}

#[inline(always)]
fn copy_known<A: Real, const N: usize>(target: &mut [A], source: &[A]) {
    target[..N].copy_from_slice(&source[..N]);
}
