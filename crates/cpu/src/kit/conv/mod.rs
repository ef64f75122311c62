//! Convolution on the CPU: tiles of columns (see [`Unfold`]) times the weight. A task owns a group of
//! samples, cut from the shape alone, and its own partial weight gradient; partials are merged in order.

mod tiles;

use spikenorm_core::Result;
use spikenorm_core::kit::{Conv2dForward, Conv2dSaved, Conv2dSpec, Frames, LayerGrads, LayerOutput, Window};

use self::tiles::{Plan, fold_tile, gather_tile, scatter_tile, unfold_tile};
use super::scratch::Scratch;
use super::unfold::Unfold;
use crate::HostMemory;
use crate::backend::{Cpu, CpuTensor};
use crate::element::Real;
use crate::matmul::{Matrix, multiply};
use crate::parallel::for_each;
use crate::tensor_ops::{copy_of, write_f64};

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

    convolve(spec, frames, x, weight, bias, &mut out.as_mut_slice::<A>()[..frames.samples * outputs])?;
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

/// Writes the convolution of x `[samples, C, H, W]` to y.
fn convolve<A: Real>(
    spec: &Conv2dSpec,
    frames: Frames,
    x: &[A],
    weight: &[A],
    bias: Option<&[A]>,
    y: &mut [A],
) -> Result<()> {
    let (inputs, outputs) =
        (frames.channels * frames.input_plane(), spec.out_channels * frames.output_plane());
    let plan = Plan::new(spec, frames, size_of::<A>());
    let unfold = Unfold::new(spec.window, frames);
    let ys = y.chunks_mut(plan.group * outputs);
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
    .collect()
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

    let dx = &mut out.as_mut_slice::<A>()[..input_len];
    let turned = if needs_dx { Turned::of(spec, frames) } else { None };
    if let Some(Turned { spec, frames }) = &turned {
        convolve(spec, *frames, gradient, &turned_weight(spec, weight), None, dx)?;
    }
    // Otherwise folded, beside the weight's gradient.
    let folds = needs_dx && turned.is_none();
    let plan = Plan::new(spec, frames, size_of::<A>());
    let unfold = Unfold::new(spec.window, frames);
    let mut dxs = dx[..if folds { input_len } else { 0 }].chunks_mut(plan.group * inputs);
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

/// The convolution that gives the input's gradient from the output's: of stride 1, the same window turned by half a circle,
/// with inputs and outputs exchanged. Its matrix product is the better one (as many terms as the forward's, where columns
/// to be folded have one per output channel), and nothing is folded.
struct Turned {
    spec: Conv2dSpec,
    frames: Frames,
}

impl Turned {
    /// `None` for strides, for paddings beyond the window, and where the columns would be by far the more.
    fn of(spec: &Conv2dSpec, frames: Frames) -> Option<Self> {
        let Window { kernel, stride, padding } = spec.window;
        let fits = stride == [1, 1] && padding[0] < kernel[0] && padding[1] < kernel[1];
        if !fits || spec.out_channels > 2 * spec.in_channels {
            return None;
        }
        let padding = [kernel[0] - 1 - padding[0], kernel[1] - 1 - padding[1]];
        let spec = Conv2dSpec {
            in_channels: spec.out_channels,
            out_channels: spec.in_channels,
            window: Window { kernel, stride, padding },
        };
        let frames =
            Frames { channels: spec.in_channels, input: frames.output, output: frames.input, ..frames };
        Some(Self { spec, frames })
    }
}

/// The weight `[O, C, kh, kw]` of a convolution as that of its turned one, `[C, O, kh, kw]`.
fn turned_weight<A: Real>(turned: &Conv2dSpec, weight: &[A]) -> Vec<A> {
    let [height, width] = turned.window.kernel;
    let (kernel, channels, outputs) = (height * width, turned.out_channels, turned.in_channels);
    let mut all = vec![A::default(); weight.len()];
    for (o, filters) in weight.chunks_exact(channels * kernel).enumerate() {
        for (c, filter) in filters.chunks_exact(kernel).enumerate() {
            let target = &mut all[(c * outputs + o) * kernel..][..kernel];
            for (to, from) in target.iter_mut().zip(filter.iter().rev()) {
                *to = *from;
            }
        }
    }
    all
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
