//! The gradients of a convolution. The weight's is the product of the output's gradient and of columns of the input, whose
//! own gradient is columns folded up. Or, for stride 1, everything by the columns of the output's gradient: see [`Turned`].

use spikenorm_core::Result;
use spikenorm_core::kit::{Conv2dSaved, Conv2dSpec, Frames, LayerGrads, Window};

use super::tiles::{Plan, fold_tile, multiply_to_tile, tile_of, unfold_tile};
use crate::HostMemory;
use crate::backend::{Cpu, CpuTensor};
use crate::element::Real;
use crate::kit::scratch::{Scratch, row_sum};
use crate::kit::unfold::Unfold;
use crate::matmul::{Matrix, MatrixMut, multiply};
use crate::parallel::for_each;
use crate::tensor_ops::write_f64;

/// Gradients of weight and bias from a group of samples.
type Partial<A> = (Vec<A>, Vec<f64>);

/// What both ways read.
struct Pass<'a, A> {
    spec: &'a Conv2dSpec,
    frames: Frames,
    x: &'a [A],
    dy: &'a [A],
    weight: &'a [A],
    has_bias: bool,
}

pub fn backward<A: Real>(
    saved: &Conv2dSaved<HostMemory>,
    dy: &CpuTensor,
    needs_dx: bool,
) -> Result<LayerGrads<HostMemory>> {
    let (spec, frames) = (&saved.spec, saved.frames);
    let inputs = frames.samples * frames.channels * frames.input_plane();
    let outputs = frames.samples * spec.out_channels * frames.output_plane();
    let mut out = HostMemory::take(if needs_dx { inputs * size_of::<A>() } else { 0 })?;
    let x = saved.x.memory.read()?;
    let gradient = dy.memory.read()?;
    let weight = saved.weight.memory.read()?;
    let pass = Pass {
        spec,
        frames,
        x: x.slice::<A>(saved.x.offset, inputs),
        dy: gradient.slice::<A>(dy.offset, outputs),
        weight: weight.slice::<A>(saved.weight.offset, saved.weight.len()),
        has_bias: saved.has_bias,
    };
    let dx = &mut out.as_mut_slice::<A>()[..if needs_dx { inputs } else { 0 }];
    let turned = Turned::of(spec, frames);
    let (partials, as_if) = match &turned {
        Some(turned) => (pass.turned(turned, dx)?, &turned.spec),
        None => (pass.folded(dx)?, spec),
    };
    let parts = partials.iter().map(|(dw, _)| dw.iter().map(|v| v.to_f64()));
    let total = row_by_row(merge(saved.weight.len(), parts), as_if);
    let weight_grad = if turned.is_some() { turn(&total, as_if) } else { total };
    let bias_grad = merge(spec.out_channels, partials.iter().map(|(_, db)| db.iter().copied()));

    Ok(LayerGrads {
        dx: needs_dx.then(|| CpuTensor::new(out, &saved.x.shape, A::DTYPE)),
        weight: tensor::<A>(&weight_grad, &saved.weight.shape)?,
        bias: if saved.has_bias { Some(tensor::<A>(&bias_grad, &[spec.out_channels])?) } else { None },
    })
}

impl<A: Real> Pass<'_, A> {
    /// Values of a sample of x, and of one of dy.
    fn sample_lengths(&self) -> [usize; 2] {
        let Self { spec, frames, .. } = self;
        [frames.channels * frames.input_plane(), spec.out_channels * frames.output_plane()]
    }

    /// Groups of samples of x, dy and dx, which may be empty.
    fn tasks<'a>(&'a self, plan: Plan, dx: &'a mut [A]) -> Vec<(&'a [A], &'a [A], &'a mut [A])> {
        let [inputs, outputs] = self.sample_lengths();
        let mut dxs = dx.chunks_mut(plan.group * inputs);
        let pairs = self.x.chunks(plan.group * inputs).zip(self.dy.chunks(plan.group * outputs));
        pairs.map(|(x, dy)| (x, dy, dxs.next().unwrap_or_default())).collect()
    }

    /// Of a task's dy; nothing without a bias.
    fn bias_grad(&self, dy: &[A]) -> Vec<f64> {
        let mut db = vec![0.0; if self.has_bias { self.spec.out_channels } else { 0 }];
        for planes in dy.chunks_exact(self.spec.out_channels * self.frames.output_plane()) {
            for (db, plane) in db.iter_mut().zip(planes.chunks_exact(self.frames.output_plane())) {
                *db += row_sum(plane);
            }
        }
        db
    }

    /// By columns of x, folded up for dx where there is one.
    fn folded(&self, dx: &mut [A]) -> Result<Vec<Partial<A>>> {
        let Self { spec, frames, weight, .. } = *self;
        let plan = Plan::new(spec, frames, size_of::<A>());
        let unfold = Unfold::new(spec.window, frames);
        let (fan_in, out_channels) = (unfold.rows(), spec.out_channels);
        let width = plan.columns(frames);
        let room = plan.room(frames, out_channels);
        let lengths = [unfold.padded_len(), unfold.padded_len(), fan_in * width, room];
        let weight = Matrix::new(weight, out_channels, fan_in);
        let [inputs, _] = self.sample_lengths();
        for_each(3 * plan.bytes, self.tasks(plan, dx), |(x, dy, dx)| {
            let mut scratch = Scratch::take::<A>(&lengths)?;
            let [padded, folded, columns, room] = scratch.split::<A, 4>(lengths);
            padded.fill(A::default());
            let mut dw = vec![A::default(); self.weight.len()];
            let db = self.bias_grad(dy);
            for tile in plan.tiles(x.len() / inputs, frames.output[0]) {
                let width = tile.columns(frames);
                let columns = &mut columns[..fan_in * width];
                unfold_tile(tile, frames, &unfold, x, padded, columns);
                let dy = tile_of(tile, frames, out_channels, dy, room);
                add_weight_grad(&mut dw, Matrix::new(columns, fan_in, width), dy);
                if dx.is_empty() {
                    continue;
                }
                multiply(MatrixMut::new(columns, fan_in, width), weight.transposed(), dy, false);
                fold_tile(tile, frames, &unfold, columns, folded, dx);
            }
            Ok((dw, db))
        })?
        .into_iter()
        .collect()
    }

    /// By columns of dy; likewise.
    fn turned(&self, turned: &Turned, dx: &mut [A]) -> Result<Vec<Partial<A>>> {
        let Turned { spec, frames } = turned;
        let frames = *frames;
        let plan = Plan::new(spec, frames, size_of::<A>());
        let unfold = Unfold::new(spec.window, frames);
        let (fan_in, channels) = (unfold.rows(), spec.out_channels);
        let width = plan.columns(frames);
        let lengths = [unfold.padded_len(), fan_in * width, plan.room(frames, channels)];
        let weight = turn(self.weight, self.spec);
        let weight = Matrix::new(&weight, channels, fan_in);
        let [_, outputs] = self.sample_lengths();
        for_each(3 * plan.bytes, self.tasks(plan, dx), |(x, dy, dx)| {
            let mut scratch = Scratch::take::<A>(&lengths)?;
            let [padded, columns, room] = scratch.split::<A, 3>(lengths);
            padded.fill(A::default());
            let mut dw = vec![A::default(); self.weight.len()];
            let db = self.bias_grad(dy);
            for tile in plan.tiles(dy.len() / outputs, frames.output[0]) {
                let width = tile.columns(frames);
                let columns = &mut columns[..fan_in * width];
                unfold_tile(tile, frames, &unfold, dy, padded, columns);
                let columns = Matrix::new(columns, fan_in, width);
                add_weight_grad(&mut dw, columns, tile_of(tile, frames, channels, x, room));
                if dx.is_empty() {
                    continue;
                }
                multiply_to_tile((tile, frames), [weight, columns], None, dx, room);
            }
            Ok((dw, db))
        })?
        .into_iter()
        .collect()
    }
}

/// The convolution that gives the input's gradient from the output's: of stride 1, the same window turned by half a circle,
/// with inputs and outputs exchanged. Its columns serve both gradients, its matrix product has more terms than the one whose
/// columns are folded up (the window's times the outputs; there, the outputs), and nothing is folded.
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

/// The weight `[O, C, kh, kw]` of a convolution as that of its turned one, `[C, O, kh, kw]`; and the other way round.
fn turn<A: Real>(weight: &[A], spec: &Conv2dSpec) -> Vec<A> {
    let kernel = spec.window.kernel[0] * spec.window.kernel[1];
    let mut all = vec![A::default(); weight.len()];
    for (at, filter) in weight.chunks_exact(kernel).enumerate() {
        let (o, c) = (at / spec.in_channels, at % spec.in_channels);
        let target = &mut all[(c * spec.out_channels + o) * kernel..][..kernel];
        for (to, from) in target.iter_mut().zip(filter.iter().rev()) {
            *to = *from;
        }
    }
    all
}

/// Adds `images·columnsᵀ` to `dw`, or its transpose: whichever makes the product bring the smaller factor in order. See
/// [`row_by_row`].
fn add_weight_grad<A: Real>(dw: &mut [A], columns: Matrix<'_, A>, images: Matrix<'_, A>) {
    let (channels, fan_in) = (images.rows(), columns.rows());
    if is_transposed(channels, fan_in) {
        multiply(MatrixMut::new(dw, fan_in, channels), columns, images.transposed(), true);
    } else {
        multiply(MatrixMut::new(dw, channels, fan_in), images, columns.transposed(), true);
    }
}

fn is_transposed(channels: usize, fan_in: usize) -> bool {
    channels <= fan_in
}

/// What [`add_weight_grad`] made, as `[O, C·kh·kw]`.
fn row_by_row(dw: Vec<f64>, spec: &Conv2dSpec) -> Vec<f64> {
    let (channels, fan_in) = (spec.out_channels, spec.fan_in());
    if !is_transposed(channels, fan_in) {
        return dw;
    }
    (0..channels).flat_map(|channel| dw[channel..].iter().step_by(channels).copied()).collect()
}

/// Sums partial gradients of `len` values in float64, in their order.
fn merge<P: Iterator<Item = f64>>(len: usize, parts: impl Iterator<Item = P>) -> Vec<f64> {
    let mut total = vec![0.0; len];
    for part in parts {
        for (total, value) in total.iter_mut().zip(part) {
            *total += value;
        }
    }
    total
}

fn tensor<A: Real>(values: &[f64], shape: &[usize]) -> Result<CpuTensor> {
    let tensor = Cpu.allocate(shape, A::DTYPE)?;
    write_f64(&tensor, values)?;
    Ok(tensor)
}
