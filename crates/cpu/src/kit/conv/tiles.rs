//! How a convolution is cut into tasks and tiles, and what moves between a tile's images and its matrices.

use spikenorm_core::Result;
use spikenorm_core::kit::{Conv2dSpec, Frames};

use crate::element::Real;
use crate::kit::unfold::{Block, Unfold};
use crate::matmul::{Matrix, MatrixMut, multiply};
use crate::parallel::SERIAL_BYTES;
use crate::simd::vectorized;

/// Groups of samples, each one task.
const GROUPS: usize = 16;
/// Partial weight gradients may take this much memory together.
const PARTIAL_BYTES: usize = 256 << 20;
/// Bytes of a tile of columns: it should stay in a second-level cache between being written and read.
const TILE_BYTES: usize = 256 << 10;
/// Columns below which a matrix product does not reach its speed.
const LEAST_COLUMNS: usize = 256;

/// How a call is cut, from its shape alone.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Samples of a task.
    pub group: usize,
    /// Samples of a tile; output rows of a tile, fewer than all only where it holds one sample.
    samples: usize,
    rows: usize,
    /// Traffic to weigh against the cost of waking threads.
    pub bytes: usize,
}

/// Whole samples, or some output rows of one.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    sample: usize,
    samples: usize,
    row: usize,
    rows: usize,
}

impl Plan {
    pub fn new(spec: &Conv2dSpec, frames: Frames, size: usize) -> Self {
        let weight = spec.fan_in() * spec.out_channels * size;
        let groups = (PARTIAL_BYTES / weight).clamp(1, GROUPS);
        let group = frames.samples.div_ceil(groups).max(1);
        let columns = (TILE_BYTES / (spec.fan_in() * size)).max(LEAST_COLUMNS);
        let rows = (columns / frames.output[1]).clamp(1, frames.output[0]);
        let samples = if rows < frames.output[0] { 1 } else { columns / frames.output_plane() };
        // A product of this size takes as long as so much memory traffic, at 8 operations a byte.
        let products = spec.fan_in() * spec.out_channels * frames.output_plane() * frames.samples;
        Self { group, samples: samples.clamp(1, group), rows, bytes: (products / 4).min(64 * SERIAL_BYTES) }
    }

    /// Tiles of a task of `samples` samples, in a fixed order.
    pub fn tiles(self, samples: usize, output_rows: usize) -> impl Iterator<Item = Tile> {
        (0..samples).step_by(self.samples).flat_map(move |sample| {
            (0..output_rows).step_by(self.rows).map(move |row| Tile {
                sample,
                samples: self.samples.min(samples - sample),
                row,
                rows: self.rows.min(output_rows - row),
            })
        })
    }

    /// Values that [`tile_of`] and [`multiply_to_tile`] need room for.
    pub fn room(self, frames: Frames, channels: usize) -> usize {
        if self.samples == 1 { 0 } else { channels * self.columns(frames) }
    }

    /// Columns of the largest tile.
    pub fn columns(self, frames: Frames) -> usize {
        self.samples * self.rows * frames.output[1]
    }
}

impl Tile {
    pub fn columns(self, frames: Frames) -> usize {
        self.samples * self.rows * frames.output[1]
    }

    /// The block of sample `index` of this tile.
    fn block(self, frames: Frames, index: usize) -> Block {
        let width = frames.output[1];
        Block { first: self.row, rows: self.rows, at: index * self.rows * width, width: self.columns(frames) }
    }

    /// Where the tile's part of plane (sample `index`, `channel`) starts in images `[samples, C, plane]`.
    #[inline(always)]
    fn start(self, frames: Frames, channels: usize, index: usize, channel: usize) -> usize {
        let plane = (self.sample + index) * channels + channel;
        plane * frames.output_plane() + self.row * frames.output[1]
    }
}

vectorized! {
    /// Writes the tile's columns of the input `[samples, C, H, W]`.
    pub fn unfold_tile<'a, A: Real>(
        tile: Tile,
        frames: Frames,
        unfold: &'a Unfold,
        x: &'a [A],
        padded: &'a mut [A],
        columns: &'a mut [A],
    ) {
        let sample_len = frames.channels * frames.input_plane();
        for index in 0..tile.samples {
            if tile.row == 0 {
                unfold.pad(&x[(tile.sample + index) * sample_len..][..sample_len], padded);
            }
            unfold.unfold(padded, columns, tile.block(frames, index));
        }
    }
}

vectorized! {
    /// Adds the tile's columns up to the input's gradient, and writes each sample that is complete.
    pub fn fold_tile<'a, A: Real>(
        tile: Tile,
        frames: Frames,
        unfold: &'a Unfold,
        columns: &'a [A],
        folded: &'a mut [A],
        dx: &'a mut [A],
    ) {
        let sample_len = frames.channels * frames.input_plane();
        for index in 0..tile.samples {
            if tile.row == 0 {
                folded.fill(A::default());
            }
            unfold.fold(columns, folded, tile.block(frames, index));
            if tile.row + tile.rows == frames.output[0] {
                unfold.crop(folded, &mut dx[(tile.sample + index) * sample_len..][..sample_len]);
            }
        }
    }
}

/// The tile of images `[samples, channels, plane]`, an output's or its gradient, as a matrix `[channels, columns]`: as it
/// lies there if it is of one sample, otherwise gathered in `room`.
pub fn tile_of<'a, A: Real>(
    tile: Tile,
    frames: Frames,
    channels: usize,
    images: &'a [A],
    room: &'a mut [A],
) -> Matrix<'a, A> {
    let width = tile.columns(frames);
    if tile.samples == 1 {
        let images = &images[tile.start(frames, channels, 0, 0)..];
        return Matrix::strided(images, channels, width, frames.output_plane());
    }
    let room = &mut room[..channels * width];
    let piece = tile.rows * frames.output[1];
    for (row, values) in room.chunks_exact_mut(piece).enumerate() {
        let (channel, index) = (row / tile.samples, row % tile.samples);
        values.copy_from_slice(&images[tile.start(frames, channels, index, channel)..][..piece]);
    }
    Matrix::new(room, channels, width)
}

/// Writes the product `weight·columns` plus bias to the tile of images `[samples, channels, plane]`: the inverse of
/// [`tile_of`].
pub fn multiply_to_tile<A: Real>(
    (tile, frames): (Tile, Frames),
    [weight, columns]: [Matrix<'_, A>; 2],
    bias: Option<&[A]>,
    images: &mut [A],
    room: &mut [A],
) -> Result<()> {
    let channels = weight.rows();
    let width = tile.columns(frames);
    let multiply = |mut out: MatrixMut<'_, A>| {
        for (row, bias) in out.rows_mut().zip(bias.into_iter().flatten()) {
            row.fill(*bias);
        }
        multiply(out, weight, columns, bias.is_some())
    };
    if tile.samples == 1 {
        let images = &mut images[tile.start(frames, channels, 0, 0)..];
        return multiply(MatrixMut::strided(images, channels, width, frames.output_plane()));
    }
    let room = &mut room[..channels * width];
    multiply(MatrixMut::new(room, channels, width))?;
    let piece = tile.rows * frames.output[1];
    for (row, values) in room.chunks_exact(piece).enumerate() {
        let (channel, index) = (row / tile.samples, row % tile.samples);
        images[tile.start(frames, channels, index, channel)..][..piece].copy_from_slice(values);
    }
    Ok(())
}
