//! NeuNorm on the CPU: a task owns a sample (or a strip of its pixels, where a sample is large; in backward a group of
//! samples) and walks t inside, so that the input is read from memory once and the state stays in cache.

mod backward;
mod channels_last;
mod forward;
mod strips;
mod tiny;

use spikenorm_core::{
    DType, Grid, Layout, NeuNormForward, NeuNormGrads, NeuNormOutput, NeuNormSaved, Result,
};

use crate::HostMemory;
use crate::backend::CpuTensor;
use crate::element::{Element, fast};
use crate::memory::Reading;
use crate::tensor_ops::copy_of;

/// Groups of samples that share one partial weight gradient, at most; fixed, so that the order of sums is.
const GROUPS: usize = 8;

pub fn forward<E: Element>(call: &NeuNormForward<'_, HostMemory>) -> Result<NeuNormOutput<HostMemory>> {
    match call.spec.layout {
        Layout::Contiguous if tiny::fits(E::DTYPE, call.grid) => tiny::forward::<fast::F32>(call),
        Layout::Contiguous => forward::forward::<E>(call),
        Layout::ChannelsLast => channels_last::forward::<E>(call),
    }
}

pub fn backward<E: Element>(
    saved: &NeuNormSaved<HostMemory>,
    dy: &CpuTensor,
    carry: Option<&CpuTensor>,
) -> Result<NeuNormGrads<HostMemory>> {
    match saved.spec.layout {
        Layout::Contiguous if tiny::fits(E::DTYPE, saved.grid) => {
            tiny::backward::<fast::F32>(saved, dy, carry)
        }
        Layout::Contiguous => backward::backward::<E>(saved, dy, carry),
        Layout::ChannelsLast => channels_last::backward::<E>(saved, dy, carry),
    }
}

/// What a forward gives: its output, the state after the last of the steps' states `[T, N, S]`, and what backward needs.
fn output(
    call: &NeuNormForward<'_, HostMemory>,
    y: HostMemory,
    states: HostMemory,
) -> Result<NeuNormOutput<HostMemory>> {
    let (spec, grid, dtype) = (call.spec, call.grid, call.x.dtype);
    let states = CpuTensor::new(states, &[grid.t, grid.n, grid.s], dtype.parameter());
    let last = states.rows(grid.t.saturating_sub(1), 1).reshape(&[grid.n, 1, spec.height, spec.width])?;
    // A view of the last step would hold all T states alive.
    let state = if grid.t > 1 { copy_of(&last)? } else { last };
    let saved = if call.record {
        Some(NeuNormSaved {
            spec: spec.clone(),
            grid,
            input_shape: call.x.shape.clone(),
            input_dtype: dtype,
            weight: copy_of(call.weight)?,
            states,
        })
    } else {
        None
    };
    Ok(NeuNormOutput { y: CpuTensor::new(y, &call.x.shape, dtype), state, saved })
}

/// What a backward reads.
struct BackwardInputs<'a> {
    dy: Values<'a>,
    weight: Values<'a>,
    states: Values<'a>,
    carried: Option<Values<'a>>,
}

impl<'a> BackwardInputs<'a> {
    fn of(
        saved: &'a NeuNormSaved<HostMemory>,
        dy: &'a CpuTensor,
        carry: Option<&'a CpuTensor>,
    ) -> Result<Self> {
        Ok(Self {
            dy: Values::of(dy)?,
            weight: Values::of(&saved.weight)?,
            states: Values::of(&saved.states)?,
            carried: carry.map(Values::of).transpose()?,
        })
    }

    /// The gradient of the state after the last step; `None` is zero.
    fn carried<A: bytemuck::Pod>(&self) -> Option<&[A]> {
        self.carried.as_ref().map(Values::slice)
    }
}

/// Memory for dx and for the gradient of the state before the first step.
fn take_grads(grid: Grid, dtype: DType) -> Result<[HostMemory; 2]> {
    let state = grid.n * grid.s * dtype.parameter().size();
    Ok([HostMemory::take(grid.len() * dtype.size())?, HostMemory::take(state)?])
}

/// What a backward gives.
fn grads(
    saved: &NeuNormSaved<HostMemory>,
    dtype: DType,
    dx: HostMemory,
    weight: CpuTensor,
    state: HostMemory,
) -> NeuNormGrads<HostMemory> {
    let shape = [saved.grid.n, 1, saved.spec.height, saved.spec.width];
    NeuNormGrads {
        dx: CpuTensor::new(dx, &saved.input_shape, dtype),
        weight,
        state: CpuTensor::new(state, &shape, dtype.parameter()),
    }
}

/// A tensor's memory, and the values in it.
struct Values<'a> {
    memory: Reading<'a>,
    tensor: &'a CpuTensor,
}

impl<'a> Values<'a> {
    fn of(tensor: &'a CpuTensor) -> Result<Self> {
        Ok(Self { memory: tensor.memory.read()?, tensor })
    }

    fn slice<E: bytemuck::Pod>(&self) -> &[E] {
        self.memory.slice(self.tensor.offset, self.tensor.len())
    }
}
