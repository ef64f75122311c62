//! The gradients of a convolution. The weight's is the product of the output's gradient and of columns of the input, whose
//! own gradient is columns folded up. Or, for stride 1, everything by the columns of the output's gradient: see [`Turned`].

use spikenorm_core::Result;
use spikenorm_core::kit::{Conv2dSaved, Conv2dSpec, Frames, LayerGrads, Window};

use super::tiles::{Plan, fold_tile, gather_tile, scatter_tile, unfold_tile};
use crate::HostMemory;
use crate::backend::{Cpu, CpuTensor};
use crate::element::Real;
use crate::kit::scratch::{Scratch, row_sum};
use crate::kit::unfold::Unfold;
use crate::matmul::{Matrix, multiply};
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
    let partials = match Turned::of(spec, frames) {
        Some(turned) => pass.turned(&turned, dx),
        None => pass.folded(dx),
    }?;

    Ok(LayerGrads {
        dx: needs_dx.then(|| CpuTensor::new(out, &saved.x.shape, A::DTYPE)),
        weight: merge(
            partials.iter().map(|(dw, _)| dw.iter().map(|v| v.to_f64())),
            &saved.weight.shape,
            &saved.weight,
        )?,
        bias: if saved.has_bias {
            let parts = partials.iter().map(|(_, db)| db.iter().copied());
            Some(merge(parts, &[spec.out_channels], &saved.weight)?)
        } else {
            None
        },
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

    fn empty_partial(&self) -> Partial<A> {
        let outputs = if self.has_bias { self.spec.out_channels } else { 0 };
        (vec![A::default(); self.weight.len()], vec![0.0; outputs])
    }

    /// By columns of x, folded up for dx where there is one.
    fn folded(&self, dx: &mut [A]) -> Result<Vec<Partial<A>>> {
        let Self { spec, frames, weight, .. } = *self;
        let plan = Plan::new(spec, frames, size_of::<A>());
        let unfold = Unfold::new(spec.window, frames);
        let (fan_in, out_channels) = (unfold.rows(), spec.out_channels);
        let width = plan.columns(frames);
        let lengths = [unfold.padded_len(), unfold.padded_len(), fan_in * width, out_channels * width];
        let [inputs, _] = self.sample_lengths();
        for_each(3 * plan.bytes, self.tasks(plan, dx), |(x, dy, dx)| {
            let mut scratch = Scratch::take::<A>(&lengths)?;
            let [padded, folded, columns, gathered] = scratch.split::<A, 4>(lengths);
            padded.fill(A::default());
            let (mut dw, mut db) = self.empty_partial();
            for tile in plan.tiles(x.len() / inputs, frames.output[0]) {
                let width = tile.columns(frames);
                let columns = &mut columns[..fan_in * width];
                let gathered = &mut gathered[..out_channels * width];
                unfold_tile(tile, frames, &unfold, x, padded, columns);
                gather_tile(tile, frames, dy, gathered);
                for (db, row) in db.iter_mut().zip(gathered.chunks_exact(width)) {
                    *db += row_sum(row);
                }
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
        let lengths = [unfold.padded_len(), fan_in * width, channels * width];
        let weight = turn(self.weight, self.spec);
        let [_, outputs] = self.sample_lengths();
        for_each(3 * plan.bytes, self.tasks(plan, dx), |(x, dy, dx)| {
            let mut scratch = Scratch::take::<A>(&lengths)?;
            let [padded, columns, matrix] = scratch.split::<A, 3>(lengths);
            padded.fill(A::default());
            let (mut dw, mut db) = self.empty_partial();
            for (row, plane) in dy.chunks_exact(self.frames.output_plane()).enumerate() {
                if let Some(db) = db.get_mut(row % self.spec.out_channels) {
                    *db += row_sum(plane);
                }
            }
            for tile in plan.tiles(dy.len() / outputs, frames.output[0]) {
                let width = tile.columns(frames);
                let columns = &mut columns[..fan_in * width];
                let matrix = &mut matrix[..channels * width];
                unfold_tile(tile, frames, &unfold, dy, padded, columns);
                let columns = Matrix::new(columns, fan_in, width);
                gather_tile(tile, frames, x, matrix);
                multiply(&mut dw, Matrix::new(matrix, channels, width), columns.transposed(), true);
                if dx.is_empty() {
                    continue;
                }
                multiply(matrix, Matrix::new(&weight, channels, fan_in), columns, false);
                scatter_tile(tile, frames, matrix, None, dx);
            }
            Ok((turn(&dw, spec), db))
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
