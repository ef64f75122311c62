//! Neurons on the CPU: a task owns a strip of them and walks t inside, so that voltages stay in registers
//! or the nearest cache and memory is read once.

use spikenorm_core::kit::{
    Charge, NeuronForward, NeuronGrads, NeuronGrid, NeuronOutput, NeuronSaved, NeuronSpec, Surrogate,
};
use spikenorm_core::{Result, workspace};

use crate::HostMemory;
use crate::backend::CpuTensor;
use crate::element::Real;
use crate::parallel::for_each;
use crate::simd::vectorized;

/// Neurons of a task.
const STRIP: usize = 2048;

/// Cuts `[T, neurons]` into strips, each a list of T pieces.
fn cut<A>(values: &mut [A], grid: NeuronGrid) -> Result<Vec<Vec<&mut [A]>>> {
    let strips = (0..grid.neurons.div_ceil(STRIP)).map(|_| workspace::with_capacity(grid.steps));
    let mut strips: Vec<Vec<&mut [A]>> = workspace::try_collect(strips)?;
    for step in values.chunks_exact_mut(grid.neurons.max(1)) {
        for (piece, strip) in step.chunks_mut(STRIP).zip(&mut strips) {
            strip.push(piece);
        }
    }
    Ok(strips)
}

/// The piece of step `t` that strip `strip` covers, `len` neurons.
#[inline(always)]
fn piece<A>(values: &[A], grid: NeuronGrid, t: usize, strip: usize, len: usize) -> &[A] {
    &values[t * grid.neurons + strip * STRIP..][..len]
}

pub fn forward<A: Real>(call: &NeuronForward<'_, HostMemory>) -> Result<NeuronOutput<HostMemory>> {
    let (spec, grid) = (call.spec, call.grid);
    let total = grid.steps * grid.neurons;
    let dtype = A::DTYPE;
    let mut out = HostMemory::take(total * size_of::<A>())?;
    let mut state = HostMemory::take(grid.neurons * size_of::<A>())?;
    let recorded = if call.record { total } else { 0 };
    let mut voltages = HostMemory::take(recorded * size_of::<A>())?;
    let x = call.x.memory.read()?;
    let x = x.slice::<A>(call.x.offset, total);
    let initial = call.state.map(|state| state.memory.read()).transpose()?;
    let initial = initial.as_ref().zip(call.state);
    let initial = initial.map(|(memory, state)| memory.slice::<A>(state.offset, grid.neurons));

    let spikes = cut(&mut out.as_mut_slice::<A>()[..total], grid)?;
    let mut hs = cut(&mut voltages.as_mut_slice::<A>()[..recorded], grid)?.into_iter();
    let vs = state.as_mut_slice::<A>()[..grid.neurons].chunks_mut(STRIP);
    let tasks = spikes.into_iter().zip(vs).map(|(spikes, v)| (spikes, v, hs.next().unwrap_or_default()));
    let tasks = workspace::collect(tasks.enumerate())?;
    for_each(2 * size_of_val(x), tasks, |(strip, (mut ys, v, mut hs))| {
        match initial {
            Some(initial) => v.copy_from_slice(piece(initial, grid, 0, strip, v.len())),
            None => v.fill(A::from_f64(spec.initial_voltage())),
        }
        for (t, y) in ys.iter_mut().enumerate() {
            step(spec, piece(x, grid, t, strip, y.len()), v, y, hs.get_mut(t).map(|h| &mut **h));
        }
        Ok(())
    })?;

    let saved = call.record.then(|| NeuronSaved {
        spec: spec.clone(),
        grid,
        input_shape: call.x.shape.clone(),
        input_dtype: A::DTYPE,
        state_shape: call.state_shape.to_vec(),
        voltages: CpuTensor::new(voltages, &[grid.steps, grid.neurons], dtype),
    });
    Ok(NeuronOutput {
        spikes: CpuTensor::new(out, &call.x.shape, A::DTYPE),
        state: CpuTensor::new(state, call.state_shape, dtype),
        saved,
    })
}

vectorized! {
    /// One time step of a strip: charge, fire, reset.
    fn step<'a, A: Real>(
        spec: &'a NeuronSpec,
        x: &'a [A],
        v: &'a mut [A],
        spikes: &'a mut [A],
        saved: Option<&'a mut [A]>,
    ) {
        let rest = A::from_f64(spec.initial_voltage());
        let saved = saved.unwrap_or_default();
        // SpikingJelly's order of operations, so that a voltage at the threshold falls on the same side.
        match spec.charge {
            Charge::Integrate => step_with(spec, x, v, spikes, saved, |v, x| v + x),
            Charge::Leaky { tau, decay_input: true } => {
                let tau = A::from_f64(tau);
                step_with(spec, x, v, spikes, saved, |v, x| v + (x - (v - rest)) / tau);
            }
            Charge::Leaky { tau, decay_input: false } => {
                let tau = A::from_f64(tau);
                step_with(spec, x, v, spikes, saved, |v, x| v - (v - rest) / tau + x);
            }
        }
    }
}

/// `saved` may be empty.
#[inline(always)]
fn step_with<A: Real>(
    spec: &NeuronSpec,
    x: &[A],
    v: &mut [A],
    spikes: &mut [A],
    saved: &mut [A],
    charge: impl Fn(A, A) -> A,
) {
    let (zero, one) = (A::default(), A::from_f64(1.0));
    let threshold = A::from_f64(spec.v_threshold);
    let rest = A::from_f64(spec.initial_voltage());
    let hard = spec.v_reset.is_some();
    // All three are stored in every case: a store behind a condition would keep the loops from being vectors.
    let fire = |v: A, x: A| {
        let h = charge(v, x);
        let fires = h >= threshold;
        let reset = if hard { rest } else { h - threshold };
        (h, if fires { one } else { zero }, if fires { reset } else { h })
    };
    if saved.is_empty() {
        for ((x, v), spike) in x.iter().zip(v).zip(spikes) {
            (_, *spike, *v) = fire(*v, *x);
        }
    } else {
        for (((x, v), spike), saved) in x.iter().zip(v).zip(spikes).zip(saved) {
            (*saved, *spike, *v) = fire(*v, *x);
        }
    }
}

pub fn backward<A: Real>(
    saved: &NeuronSaved<HostMemory>,
    dy: &CpuTensor,
    carry: Option<&CpuTensor>,
) -> Result<NeuronGrads<HostMemory>> {
    let (spec, grid) = (&saved.spec, saved.grid);
    let total = grid.steps * grid.neurons;
    let mut out = HostMemory::take(total * size_of::<A>())?;
    let mut state = HostMemory::take(grid.neurons * size_of::<A>())?;
    let gradient = dy.memory.read()?;
    let gradient = gradient.slice::<A>(dy.offset, total);
    let voltages = saved.voltages.memory.read()?;
    let voltages = voltages.slice::<A>(saved.voltages.offset, total);
    let carried = carry.map(|tensor| tensor.memory.read()).transpose()?;
    let carried = carried.as_ref().zip(carry);
    let carried = carried.map(|(memory, tensor)| memory.slice::<A>(tensor.offset, grid.neurons));

    let dxs = cut(&mut out.as_mut_slice::<A>()[..total], grid)?;
    let carries = state.as_mut_slice::<A>()[..grid.neurons].chunks_mut(STRIP);
    let tasks = workspace::collect(dxs.into_iter().zip(carries).enumerate())?;
    for_each(3 * size_of_val(gradient), tasks, |(strip, (mut dxs, carry))| {
        match carried {
            Some(carried) => carry.copy_from_slice(piece(carried, grid, 0, strip, carry.len())),
            None => carry.fill(A::default()),
        }
        for (t, dx) in dxs.iter_mut().enumerate().rev() {
            let len = dx.len();
            let h = piece(voltages, grid, t, strip, len);
            step_backward(spec, h, piece(gradient, grid, t, strip, len), carry, dx);
        }
        Ok(())
    })?;
    Ok(NeuronGrads {
        dx: CpuTensor::new(out, &saved.input_shape, A::DTYPE),
        state: CpuTensor::new(state, &saved.state_shape, A::DTYPE),
    })
}

vectorized! {
    fn step_backward<'a, A: Real>(spec: &'a NeuronSpec, h: &'a [A], dy: &'a [A], carry: &'a mut [A], dx: &'a mut [A]) {
        let one = A::from_f64(1.0);
        match spec.surrogate {
            Surrogate::Atan { alpha } => {
                let slope = A::from_f64(std::f64::consts::FRAC_PI_2 * alpha);
                let height = A::from_f64(alpha / 2.0);
                step_backward_with(spec, h, dy, carry, dx, |z| {
                    let scaled = slope * z;
                    height / (one + scaled * scaled)
                });
            }
            Surrogate::Sigmoid { alpha } => {
                let alpha = A::from_f64(alpha);
                step_backward_with(spec, h, dy, carry, dx, |z| {
                    // σ(a)·(1 − σ(a)) is even in a; e^−|a| cannot overflow.
                    let scaled = alpha * z;
                    let e = if scaled > A::default() { -scaled } else { scaled }.exp_of_negative();
                    let whole = one + e;
                    alpha * e / (whole * whole)
                });
            }
        }
    }
}

#[inline(always)]
fn step_backward_with<A: Real>(
    spec: &NeuronSpec,
    h: &[A],
    dy: &[A],
    carry: &mut [A],
    dx: &mut [A],
    surrogate: impl Fn(A) -> A,
) {
    let (zero, one) = (A::default(), A::from_f64(1.0));
    let threshold = A::from_f64(spec.v_threshold);
    let rest = A::from_f64(spec.initial_voltage());
    let (to_input, to_state) = spec.charge_slopes();
    let (to_input, to_state) = (A::from_f64(to_input), A::from_f64(to_state));
    // The gate lets the reset's gradient through or not; a hard reset also stops the gradient of h.
    let gate = if spec.detach_reset { zero } else { one };
    let fired_slope = if spec.v_reset.is_some() { zero } else { one };
    let hard = spec.v_reset.is_some();
    let infinity = A::from_f64(f64::INFINITY);
    for (((h, dy), carry), dx) in h.iter().zip(dy).zip(carry).zip(dx) {
        let z = *h - threshold;
        let g = surrogate(z);
        let kept = if z >= zero { fired_slope } else { one };
        // At an infinite voltage the surrogate, which falls faster, takes the jump's part to 0.
        let is_infinite = *h == infinity || *h == -infinity;
        let jump = if is_infinite {
            zero
        } else if hard {
            rest - *h
        } else {
            -threshold
        };
        let delta = *dy * g + *carry * (kept + gate * jump * g);
        *dx = delta * to_input;
        *carry = delta * to_state;
    }
}
