//! One case of NeuNorm: plan, launch, compare.

use spikenorm_core::norm::{CudaDevice, CudaNeuNormPlan, Layout};
use spikenorm_core::{DType, Grid, NeuNormSpec};
use spikenorm_cuda::launches::neu_norm_launch;
use spikenorm_cuda::params::NeuNormParams;

use super::buffer::{Buffer, address, rounded, transposed};
use super::case::Random;
use super::emulator::{Emulator, SCHEDULES};
use super::norm::same_bits;
use super::reference::{NeuNormInputs, neu_norm};
use super::tolerance::compare;

#[derive(Clone, Debug)]
pub struct NeuNormCase {
    pub grid: Grid,
    pub layout: Layout,
    pub dtype: DType,
    pub shared: bool,
    /// Whether a state, and in backward its gradient, is carried over from another call.
    pub carried: bool,
    pub offset: usize,
}

impl NeuNormCase {
    pub fn check(&self, emulator: &Emulator, device: &CudaDevice, schedules: u32) -> Result<(), String> {
        let Grid { t, n, c, s } = self.grid;
        let p = self.dtype.parameter();
        let mut random = Random::new((t * 1000 + n * 100 + c * 10 + s) as u64);
        let weight_rows = if self.shared { 1 } else { c };
        let spikes: Vec<f64> =
            (0..self.grid.len()).map(|_| f64::from(u8::from(random.unit() < 0.3))).collect();
        let carried =
            |random: &mut Random| self.carried.then(|| rounded(&random.normals(n * s, 0.1, 0.5), p));
        let inputs = NeuNormInputs {
            x: rounded(&spikes, self.dtype),
            dy: rounded(&random.normals(self.grid.len(), 0.05, 1.0), self.dtype),
            weight: rounded(&random.normals(weight_rows * s, 0.0, 0.2), p),
            state: carried(&mut random),
            carry: carried(&mut random),
        };
        let k = 0.9;
        let spec =
            NeuNormSpec { channels: c, height: 1, width: s, layout: self.layout, k, shared: self.shared };
        let expected = neu_norm(k, self.shared, self.grid, &inputs);
        let alignment = if self.offset == 0 { 16 } else { 1 << self.offset.trailing_zeros() };
        let plan = |backward| {
            CudaNeuNormPlan::new(backward, self.grid, self.layout, self.dtype, alignment, device).unwrap()
        };
        let stored = |values: &[f64]| {
            let values =
                if self.layout == Layout::ChannelsLast { transposed(values, s, c) } else { values.to_vec() };
            Buffer::new(&values, self.dtype, self.offset)
        };
        let read = |buffer: &Buffer| {
            let values = buffer.values();
            if self.layout == Layout::ChannelsLast { transposed(&values, c, s) } else { values }
        };
        let weight = Buffer::new(&inputs.weight, p, 0);
        let small = |values: &Option<Vec<f64>>| values.as_ref().map(|values| Buffer::new(values, p, 0));
        let states = Buffer::poisoned(t * n * s, p, 0);

        let forward = plan(false);
        let mut first = None;
        for schedule in 0..schedules.min(SCHEDULES) {
            let x = stored(&inputs.x);
            let y = Buffer::poisoned(self.grid.len(), self.dtype, self.offset);
            let state = small(&inputs.state);
            let state_out = Buffer::poisoned(n * s, p, 0);
            let params = NeuNormParams {
                input: x.address(),
                out: y.address(),
                weight: weight.address(),
                state: address(&state),
                state_out: state_out.address(),
                states: states.address(),
                ..NeuNormParams::new(&spec, &forward)
            };
            emulator.run(&neu_norm_launch("forward", &forward, &params), schedule)?;
            same_bits(&mut first, &[&y, &states, &state_out], schedule)?;
            if schedule == 0 {
                compare("y", &read(&y), &expected.y, self.dtype, 0.0)?;
                compare("states", &states.values(), &expected.states, p, 0.0)?;
                compare("state", &state_out.values(), &expected.states[(t - 1) * n * s..], p, 0.0)?;
            }
        }

        let backward = plan(true);
        let tickets = Buffer::zeroed_words(backward.strips);
        let partial = Buffer::poisoned(backward.groups * weight_rows * s, p, 0);
        let mut first = None;
        for schedule in 0..schedules.min(SCHEDULES) {
            let dy = stored(&inputs.dy);
            let dx = Buffer::poisoned(self.grid.len(), self.dtype, self.offset);
            let carry = small(&inputs.carry);
            let state_out = Buffer::poisoned(n * s, p, 0);
            let weight_grad = Buffer::poisoned(weight_rows * s, p, 0);
            let params = NeuNormParams {
                input: dy.address(),
                out: dx.address(),
                weight: weight.address(),
                state: address(&carry),
                state_out: state_out.address(),
                states: states.address(),
                weight_grad: weight_grad.address(),
                partial: partial.address(),
                tickets: tickets.address(),
                ..NeuNormParams::new(&spec, &backward)
            };
            emulator.run(&neu_norm_launch("backward", &backward, &params), schedule)?;
            same_bits(&mut first, &[&dx, &weight_grad, &state_out], schedule)?;
            if schedule == 0 {
                let largest = inputs.dy.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                compare("dx", &read(&dx), &expected.dx, self.dtype, 0.0)?;
                compare("dw", &weight_grad.values(), &expected.weight, p, largest)?;
                compare("dstate", &state_out.values(), &expected.state, p, 0.0)?;
            }
        }
        Ok(())
    }
}
