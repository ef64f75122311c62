//! How a convolution is cut into tasks and tiles, and what moves between a tile's images and its matrices.

use spikenorm_core::kit::{Conv2dSpec, Frames};

use crate::element::Real;
use crate::kit::unfold::{Block, Unfold};
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

    /// The tile's range of plane (sample `index`, `channel`) in an output `[samples, C, plane]`.
    #[inline(always)]
    fn range(self, frames: Frames, channels: usize, index: usize, channel: usize) -> std::ops::Range<usize> {
        let width = frames.output[1];
        let plane = (self.sample + index) * channels + channel;
        let start = plane * frames.output_plane() + self.row * width;
        start..start + self.rows * width
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

vectorized! {
    /// Writes the tile's product `[O, columns]` plus bias to the output.
    pub fn scatter_tile<'a, A: Real>(
        tile: Tile,
        frames: Frames,
        product: &'a [A],
        bias: Option<&'a [A]>,
        y: &'a mut [A],
    ) {
        let channels = product.len() / tile.columns(frames);
        for (row, values) in product.chunks_exact(tile.rows * frames.output[1]).enumerate() {
            let (channel, index) = (row / tile.samples, row % tile.samples);
            let target = &mut y[tile.range(frames, channels, index, channel)];
            let bias = bias.map_or(A::default(), |bias| bias[channel]);
            for (target, value) in target.iter_mut().zip(values) {
                *target = *value + bias;
            }
        }
    }
}

/// The tile of images that are an output's, or its gradient, as a matrix `[O, columns]`: the inverse of [`scatter_tile`].
pub fn gather_tile<A: Real>(tile: Tile, frames: Frames, images: &[A], matrix: &mut [A]) {
    let channels = matrix.len() / tile.columns(frames);
    for (row, values) in matrix.chunks_exact_mut(tile.rows * frames.output[1]).enumerate() {
        let (channel, index) = (row / tile.samples, row % tile.samples);
        values.copy_from_slice(&images[tile.range(frames, channels, index, channel)]);
    }
}
