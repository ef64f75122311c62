//! Convolution on the CPU: tiles of columns (see [`Unfold`]) times the weight. A task owns a group of
//! samples, cut from the shape alone, and its own partial weight gradient; partials are merged in order.

use spikenorm_core::Result;
use spikenorm_core::kit::{Conv2dForward, Conv2dSaved, Conv2dSpec, Frames, LayerGrads, LayerOutput};

use super::scratch::{Scratch, sum};
use super::unfold::{Block, Unfold};
use crate::HostMemory;
use crate::backend::{Cpu, CpuTensor};
use crate::element::Real;
use crate::matmul::{Matrix, multiply};
use crate::parallel::{SERIAL_BYTES, for_each};
use crate::simd::vectorized;
use crate::tensor_ops::{copy_of, write_f64};

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
struct Plan {
    /// Samples of a task.
    group: usize,
    /// Samples of a tile; output rows of a tile, fewer than all only where it holds one sample.
    samples: usize,
    rows: usize,
    /// Traffic to weigh against the cost of waking threads.
    bytes: usize,
}

/// Whole samples, or some output rows of one.
#[derive(Clone, Copy, Debug)]
struct Tile {
    sample: usize,
    samples: usize,
    row: usize,
    rows: usize,
}

impl Plan {
    fn new(spec: &Conv2dSpec, frames: Frames, size: usize) -> Self {
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
    fn tiles(self, samples: usize, output_rows: usize) -> impl Iterator<Item = Tile> {
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
    fn columns(self, frames: Frames) -> usize {
        self.samples * self.rows * frames.output[1]
    }
}

impl Tile {
    fn columns(self, frames: Frames) -> usize {
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
    fn unfold_tile<'a, A: Real>(
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
    fn fold_tile<'a, A: Real>(
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
    fn scatter_tile<'a, A: Real>(
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

vectorized! {
    /// The tile of an output's gradient as a matrix `[O, columns]`; its row sums are added to `db`.
    fn gather_tile<'a, A: Real>(
        tile: Tile,
        frames: Frames,
        dy: &'a [A],
        matrix: &'a mut [A],
        db: &'a mut [f64],
    ) {
        let width = tile.columns(frames);
        let channels = matrix.len() / width;
        for (row, values) in matrix.chunks_exact_mut(tile.rows * frames.output[1]).enumerate() {
            let (channel, index) = (row / tile.samples, row % tile.samples);
            values.copy_from_slice(&dy[tile.range(frames, channels, index, channel)]);
        }
        for (db, row) in db.iter_mut().zip(matrix.chunks_exact(width)) {
            *db += sum(row);
        }
    }
}

pub fn forward<A: Real>(
    call: &Conv2dForward<'_, HostMemory>,
) -> Result<LayerOutput<HostMemory, Conv2dSaved<HostMemory>>> {
    let (spec, frames) = (call.spec, call.frames);
    let (inputs, outputs) =
        (frames.channels * frames.input_plane(), spec.out_channels * frames.output_plane());
    let mut out = HostMemory::take(frames.samples * outputs * size_of::<A>())?;
    let x = call.x.memory.read()?;
    let x = x.slice::<A>(call.x.offset, frames.samples * inputs);
    let weight = call.weight.memory.read()?;
    let weight = weight.slice::<A>(call.weight.offset, call.weight.len());
    let bias = call.bias.map(|bias| bias.memory.read()).transpose()?;
    let bias = bias.as_ref().zip(call.bias);
    let bias = bias.map(|(memory, bias)| memory.slice::<A>(bias.offset, bias.len()));

    let plan = Plan::new(spec, frames, size_of::<A>());
    let unfold = Unfold::new(spec.window, frames);
    let ys = out.as_mut_slice::<A>()[..frames.samples * outputs].chunks_mut(plan.group * outputs);
    let tasks: Vec<_> = x.chunks(plan.group * inputs).zip(ys).collect();
    let lengths =
        [unfold.padded_len(), unfold.rows() * plan.columns(frames), spec.out_channels * plan.columns(frames)];
    for_each(plan.bytes, tasks, |(x, y)| -> Result<()> {
        let mut scratch = Scratch::take::<A>(&lengths)?;
        let [padded, columns, product] = scratch.split::<A, 3>(lengths);
        padded.fill(A::default());
        for tile in plan.tiles(x.len() / inputs, frames.output[0]) {
            let width = tile.columns(frames);
            let columns = &mut columns[..unfold.rows() * width];
            let product = &mut product[..spec.out_channels * width];
            unfold_tile(tile, frames, &unfold, x, padded, columns);
            multiply(
                product,
                Matrix::new(weight, spec.out_channels, unfold.rows()),
                Matrix::new(columns, unfold.rows(), width),
                false,
            );
            scatter_tile(tile, frames, product, bias, y);
        }
        Ok(())
    })?
    .into_iter()
    .collect::<Result<()>>()?;

    let y = CpuTensor::new(out, &frames.output_shape(&call.x.shape, spec.out_channels), A::DTYPE);
    let saved = if call.record {
        Some(Conv2dSaved {
            spec: spec.clone(),
            frames,
            x: call.x.clone(),
            weight: copy_of(call.weight)?,
            has_bias: call.bias.is_some(),
        })
    } else {
        None
    };
    Ok(LayerOutput { y, saved })
}

pub fn backward<A: Real>(
    saved: &Conv2dSaved<HostMemory>,
    dy: &CpuTensor,
    needs_dx: bool,
) -> Result<LayerGrads<HostMemory>> {
    let (spec, frames) = (&saved.spec, saved.frames);
    let (inputs, outputs) =
        (frames.channels * frames.input_plane(), spec.out_channels * frames.output_plane());
    let input_len = if needs_dx { frames.samples * inputs } else { 0 };
    let mut out = HostMemory::take(input_len * size_of::<A>())?;
    let x = saved.x.memory.read()?;
    let x = x.slice::<A>(saved.x.offset, frames.samples * inputs);
    let gradient = dy.memory.read()?;
    let gradient = gradient.slice::<A>(dy.offset, frames.samples * outputs);
    let weight = saved.weight.memory.read()?;
    let weight = weight.slice::<A>(saved.weight.offset, saved.weight.len());

    let plan = Plan::new(spec, frames, size_of::<A>());
    let unfold = Unfold::new(spec.window, frames);
    let mut dxs = out.as_mut_slice::<A>()[..input_len].chunks_mut(plan.group * inputs);
    let tasks: Vec<_> = x
        .chunks(plan.group * inputs)
        .zip(gradient.chunks(plan.group * outputs))
        .map(|(x, dy)| (x, dy, dxs.next().unwrap_or_default()))
        .collect();
    let (fan_in, out_channels) = (unfold.rows(), spec.out_channels);
    let width = plan.columns(frames);
    let lengths = [unfold.padded_len(), unfold.padded_len(), fan_in * width, out_channels * width];
    let partials = for_each(3 * plan.bytes, tasks, |(x, dy, dx)| -> Result<(Vec<A>, Vec<f64>)> {
        let mut scratch = Scratch::take::<A>(&lengths)?;
        let [padded, folded, columns, gathered] = scratch.split::<A, 4>(lengths);
        padded.fill(A::default());
        let mut dw = vec![A::default(); weight.len()];
        let mut db = vec![0.0; if saved.has_bias { out_channels } else { 0 }];
        for tile in plan.tiles(x.len() / inputs, frames.output[0]) {
            let width = tile.columns(frames);
            let columns = &mut columns[..fan_in * width];
            let gathered = &mut gathered[..out_channels * width];
            unfold_tile(tile, frames, &unfold, x, padded, columns);
            gather_tile(tile, frames, dy, gathered, &mut db);
            let gathered = Matrix::new(gathered, out_channels, width);
            multiply(&mut dw, gathered, Matrix::new(columns, fan_in, width).transposed(), true);
            if dx.is_empty() {
                continue;
            }
            multiply(columns, Matrix::new(weight, out_channels, fan_in).transposed(), gathered, false);
            fold_tile(tile, frames, &unfold, columns, folded, dx);
        }
        Ok((dw, db))
    })?
    .into_iter()
    .collect::<Result<Vec<_>>>()?;

    Ok(LayerGrads {
        dx: needs_dx.then(|| CpuTensor::new(out, &saved.x.shape, A::DTYPE)),
        weight: merge(
            partials.iter().map(|(dw, _)| dw.iter().map(|v| v.to_f64())),
            &saved.weight.shape,
            &saved.weight,
        )?,
        bias: if saved.has_bias {
            let parts = partials.iter().map(|(_, db)| db.iter().copied());
            Some(merge(parts, &[out_channels], &saved.weight)?)
        } else {
            None
        },
    })
}

/// Sums partial gradients in float64, in their order, into a tensor of the dtype of `like`.
fn merge<P: Iterator<Item = f64>>(
    parts: impl Iterator<Item = P>,
    shape: &[usize],
    like: &CpuTensor,
) -> Result<CpuTensor> {
    let mut total = vec![0.0; shape.iter().product()];
    for part in parts {
        for (total, value) in total.iter_mut().zip(part) {
            *total += value;
        }
    }
    let tensor = Cpu.allocate(shape, like.dtype)?;
    write_f64(&tensor, &total)?;
    Ok(tensor)
}
