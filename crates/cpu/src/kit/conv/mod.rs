//! Convolution on the CPU: tiles of columns (see [`Unfold`]) times the weight. A task owns a group of
//! samples, cut from the shape alone, and its own partial weight gradient; partials are merged in order.

mod backward;
mod tiles;
mod turned;
mod weight_grad;

pub use backward::backward;

use spikenorm_core::kit::{Conv2dForward, Conv2dSaved, LayerOutput};
use spikenorm_core::{Result, element_count, workspace};

use self::tiles::{Plan, multiply_to_tile, unfold_tile};
use super::scratch::Scratch;
use super::unfold::Unfold;
use crate::HostMemory;
use crate::backend::{Cpu, CpuTensor};
use crate::element::Real;
use crate::matmul::Matrix;
use crate::parallel::for_each;
use crate::tensor_ops::copy_of;

pub fn forward<A: Real>(
    call: &Conv2dForward<'_, HostMemory>,
) -> Result<LayerOutput<HostMemory, Conv2dSaved<HostMemory>>> {
    let (spec, frames) = (call.spec, call.frames);
    let saved = call.record.then(|| save(call)).transpose()?;
    let output_shape = frames.output_shape(&call.x.shape, spec.out_channels);
    if frames.samples == 0 {
        return Ok(LayerOutput { y: Cpu.allocate(&output_shape, A::DTYPE)?, saved });
    }
    let (inputs, outputs) =
        (frames.channels * frames.input_plane(), spec.out_channels * frames.output_plane());
    let mut out = HostMemory::take(element_count(&output_shape)? * size_of::<A>())?;
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
    let tasks = workspace::collect(x.chunks(plan.group * inputs).zip(ys))?;
    let fan_in = unfold.rows();
    let weight = Matrix::new(weight, spec.out_channels, fan_in);
    let lengths = [unfold.padded_len(), fan_in * plan.columns(frames), plan.room(frames, spec.out_channels)];
    for_each(plan.bytes, tasks, |(x, y)| {
        let mut scratch = Scratch::take::<A>(&lengths)?;
        let [padded, columns, room] = scratch.split::<A, 3>(lengths);
        padded.fill(A::default());
        for tile in plan.tiles(x.len() / inputs, frames.output[0]) {
            let width = tile.columns(frames);
            let columns = &mut columns[..fan_in * width];
            unfold_tile(tile, frames, &unfold, x, padded, columns);
            multiply_to_tile((tile, frames), [weight, Matrix::new(columns, fan_in, width)], bias, y, room)?;
        }
        Ok(())
    })?;

    Ok(LayerOutput { y: CpuTensor::new(out, &output_shape, A::DTYPE), saved })
}

fn save(call: &Conv2dForward<'_, HostMemory>) -> Result<Conv2dSaved<HostMemory>> {
    Ok(Conv2dSaved {
        spec: call.spec.clone(),
        frames: call.frames,
        x: call.x.clone(),
        weight: copy_of(call.weight)?,
        has_bias: call.bias.is_some(),
    })
}
