//! The gradients of a convolution. The weight's is the product of the output's gradient and of columns of the input, whose
//! own gradient is columns folded up. Or, for stride 1, everything by the columns of the output's gradient: see [`Turned`].

use spikenorm_core::kit::{Conv2dSaved, Conv2dSpec, Frames, LayerGrads};
use spikenorm_core::{Result, workspace};

use super::tiles::{Plan, fold_tile, multiply_to_tile, tile_of, unfold_tile};
use super::turned::{Turned, turn};
use super::weight_grad::WeightGrad;
use crate::HostMemory;
use crate::backend::{Cpu, CpuTensor};
use crate::element::Real;
use crate::kit::scratch::{Scratch, row_sum};
use crate::kit::unfold::Unfold;
use crate::matmul::{Matrix, MatrixMut, multiply};
use crate::parallel::for_each;
use crate::tensor_ops::{fill, write_f64};

/// Sums of the gradients of weight and bias over a group of samples.
type Sums = (Scratch, Vec<f64>);

/// A group of samples of x, dy and dx.
type Task<'a, A> = (&'a [A], &'a [A], &'a mut [A]);

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
    if frames.samples == 0 {
        return no_grads::<A>(saved, needs_dx);
    }
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
    let sums = match &turned {
        Some(turned) => pass.turned(turned, dx),
        None => pass.folded(dx),
    }?;
    let (mut weight, mut bias) =
        (workspace::with_capacity(sums.len())?, workspace::with_capacity(sums.len())?);
    for (dw, db) in sums {
        weight.push(dw);
        bias.push(db);
    }

    Ok(LayerGrads {
        dx: needs_dx.then(|| CpuTensor::new(out, &saved.x.shape, A::DTYPE)),
        weight: WeightGrad::new(spec, turned.is_some()).merge::<A>(weight, &saved.weight.shape)?,
        bias: if saved.has_bias { Some(merge_bias::<A>(&bias, spec.out_channels)?) } else { None },
    })
}

/// Of no samples.
fn no_grads<A: Real>(saved: &Conv2dSaved<HostMemory>, needs_dx: bool) -> Result<LayerGrads<HostMemory>> {
    let zeros = |shape: &[usize]| -> Result<CpuTensor> {
        let grad = Cpu.allocate(shape, A::DTYPE)?;
        fill(&grad, 0.0)?;
        Ok(grad)
    };
    Ok(LayerGrads {
        dx: needs_dx.then(|| Cpu.allocate(&saved.x.shape, A::DTYPE)).transpose()?,
        weight: zeros(&saved.weight.shape)?,
        bias: saved.has_bias.then(|| zeros(&[saved.spec.out_channels])).transpose()?,
    })
}

impl<A: Real> Pass<'_, A> {
    /// Values of a sample of x, and of one of dy.
    fn sample_lengths(&self) -> [usize; 2] {
        let Self { spec, frames, .. } = self;
        [frames.channels * frames.input_plane(), spec.out_channels * frames.output_plane()]
    }

    /// Groups of samples of x, dy and dx, which may be empty.
    fn tasks<'a>(&'a self, plan: Plan, dx: &'a mut [A]) -> Result<Vec<Task<'a, A>>> {
        let [inputs, outputs] = self.sample_lengths();
        let mut dxs = dx.chunks_mut(plan.group * inputs);
        let pairs = self.x.chunks(plan.group * inputs).zip(self.dy.chunks(plan.group * outputs));
        workspace::collect(pairs.map(|(x, dy)| (x, dy, dxs.next().unwrap_or_default())))
    }

    /// Of a task's dy; nothing without a bias.
    fn bias_grad(&self, dy: &[A]) -> Result<Vec<f64>> {
        let mut db = workspace::zeros(if self.has_bias { self.spec.out_channels } else { 0 })?;
        for planes in dy.chunks_exact(self.spec.out_channels * self.frames.output_plane()) {
            for (db, plane) in db.iter_mut().zip(planes.chunks_exact(self.frames.output_plane())) {
                *db += row_sum(plane);
            }
        }
        Ok(db)
    }

    /// By columns of x, folded up for dx where there is one.
    fn folded(&self, dx: &mut [A]) -> Result<Vec<Sums>> {
        let Self { spec, frames, weight, .. } = *self;
        let plan = Plan::new(spec, frames, size_of::<A>());
        let unfold = Unfold::new(spec.window, frames);
        let (fan_in, out_channels) = (unfold.rows(), spec.out_channels);
        let width = plan.columns(frames);
        let room = plan.room(frames, out_channels);
        let lengths = [unfold.padded_len(), unfold.padded_len(), fan_in * width, room];
        let weight = Matrix::new(weight, out_channels, fan_in);
        let grad = WeightGrad::new(spec, false);
        let [inputs, _] = self.sample_lengths();
        for_each(3 * plan.bytes, self.tasks(plan, dx)?, |(x, dy, dx)| {
            let mut scratch = Scratch::take::<A>(&lengths)?;
            let [padded, folded, columns, room] = scratch.split::<A, 4>(lengths);
            padded.fill(A::default());
            let mut dw = grad.zeros::<A>()?;
            let db = self.bias_grad(dy)?;
            for tile in plan.tiles(x.len() / inputs, frames.output[0]) {
                let width = tile.columns(frames);
                let columns = &mut columns[..fan_in * width];
                unfold_tile(tile, frames, &unfold, x, padded, columns);
                let dy = tile_of(tile, frames, out_channels, dy, room);
                grad.add(&mut dw, dy, Matrix::new(columns, fan_in, width))?;
                if dx.is_empty() {
                    continue;
                }
                multiply(MatrixMut::new(columns, fan_in, width), weight.transposed(), dy, false)?;
                fold_tile(tile, frames, &unfold, columns, folded, dx);
            }
            Ok((dw, db))
        })
    }

    /// By columns of dy; likewise.
    fn turned(&self, turned: &Turned, dx: &mut [A]) -> Result<Vec<Sums>> {
        let Turned { spec, frames } = turned;
        let frames = *frames;
        let plan = Plan::new(spec, frames, size_of::<A>());
        let unfold = Unfold::new(spec.window, frames);
        let (fan_in, channels) = (unfold.rows(), spec.out_channels);
        let width = plan.columns(frames);
        let lengths = [unfold.padded_len(), fan_in * width, plan.room(frames, channels)];
        let weight = turn(self.weight, self.spec)?;
        let weight = Matrix::new(&weight, channels, fan_in);
        let grad = WeightGrad::new(self.spec, true);
        let [_, outputs] = self.sample_lengths();
        for_each(3 * plan.bytes, self.tasks(plan, dx)?, |(x, dy, dx)| {
            let mut scratch = Scratch::take::<A>(&lengths)?;
            let [padded, columns, room] = scratch.split::<A, 3>(lengths);
            padded.fill(A::default());
            let mut dw = grad.zeros::<A>()?;
            let db = self.bias_grad(dy)?;
            for tile in plan.tiles(dy.len() / outputs, frames.output[0]) {
                let width = tile.columns(frames);
                let columns = &mut columns[..fan_in * width];
                unfold_tile(tile, frames, &unfold, dy, padded, columns);
                let columns = Matrix::new(columns, fan_in, width);
                grad.add(&mut dw, tile_of(tile, frames, channels, x, room), columns)?;
                if dx.is_empty() {
                    continue;
                }
                multiply_to_tile((tile, frames), [weight, columns], None, dx, room)?;
            }
            Ok((dw, db))
        })
    }
}

/// Adds the groups' gradients of the bias, in their order.
fn merge_bias<A: Real>(groups: &[Vec<f64>], channels: usize) -> Result<CpuTensor> {
    let mut total = workspace::zeros(channels)?;
    for group in groups {
        for (total, value) in total.iter_mut().zip(group) {
            *total += value;
        }
    }
    let tensor = Cpu.allocate(&[channels], A::DTYPE)?;
    write_f64(&tensor, &total)?;
    Ok(tensor)
}
