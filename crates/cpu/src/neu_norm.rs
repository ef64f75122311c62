//! NeuNorm on the CPU: a task owns one sample (or a strip of its pixels, where a sample is large) and walks
//! t inside, so that the input is read once and the state stays in cache.

use spikenorm_core::{Grid, NeuNormForward, NeuNormGrads, NeuNormOutput, NeuNormSaved, NeuNormSpec, Result};

use crate::HostMemory;
use crate::backend::{Cpu, CpuTensor};
use crate::element::{Element, Real};
use crate::parallel::{for_each, vectorized};
use crate::stream::{Fill, STREAMING_BYTES, fence, write};
use crate::tensor_ops::copy_of;

/// Bytes of one time step's piece of a task, so that it is still in cache when it is written.
const STRIP_BYTES: usize = 256 << 10;
/// Pixels of a row from which streaming its few cache lines is worth the preparation.
const STREAMED_PIXELS: usize = 64;
/// Groups of samples that share one partial weight gradient; fixed, so that the order of sums is.
const GROUPS: usize = 8;

/// Some pixels of some samples, all channels and time steps.
#[derive(Clone, Copy)]
struct Strip {
    n0: usize,
    n: usize,
    p0: usize,
    p: usize,
}

/// Strips in a fixed order: groups of samples outside, pixels inside.
fn strips(grid: Grid, size: usize, samples: usize) -> Vec<Strip> {
    let p = (STRIP_BYTES / (grid.c * size).max(1)).clamp(1, grid.s.max(1)).next_multiple_of(16).min(grid.s);
    let mut all = Vec::new();
    for n0 in (0..grid.n).step_by(samples.max(1)) {
        for p0 in (0..grid.s).step_by(p.max(1)) {
            all.push(Strip { n0, n: samples.min(grid.n - n0), p0, p: p.min(grid.s - p0) });
        }
    }
    all
}

impl Strip {
    #[inline(always)]
    fn row<'a, E>(&self, grid: Grid, data: &'a [E], t: usize, n: usize, c: usize) -> &'a [E] {
        let start = ((t * grid.n + self.n0 + n) * grid.c + c) * grid.s + self.p0;
        &data[start..start + self.p]
    }

    #[inline(always)]
    fn state<'a, E>(&self, grid: Grid, states: &'a [E], t: usize, n: usize) -> &'a [E] {
        let start = (t * grid.n + self.n0 + n) * grid.s + self.p0;
        &states[start..start + self.p]
    }

    #[inline(always)]
    fn weight<'a, A>(&self, spec: &NeuNormSpec, s: usize, weight: &'a [A], c: usize) -> &'a [A] {
        let row = if spec.shared { 0 } else { c };
        &weight[row * s + self.p0..][..self.p]
    }
}

/// Cuts `[rows, S]` data into the strips' pieces: for each strip its rows in memory order. `rows_per_sample`
/// rows belong to one (t, n).
fn cut<'a, E>(
    out: &'a mut [E],
    grid: Grid,
    rows_per_sample: usize,
    strips: &[Strip],
) -> Vec<Vec<&'a mut [E]>> {
    let mut all: Vec<Vec<&mut [E]>> = strips.iter().map(|_| Vec::new()).collect();
    if grid.s == 0 {
        return all;
    }
    let Some(first) = strips.first() else { return all };
    let per_group = grid.s.div_ceil(first.p);
    for (index, row) in out.chunks_exact_mut(grid.s).enumerate() {
        let n = index / rows_per_sample % grid.n;
        let group = n / first.n * per_group;
        for (piece, list) in row.chunks_mut(first.p).zip(&mut all[group..]) {
            list.push(piece);
        }
    }
    all
}

pub fn forward<E: Element>(call: &NeuNormForward<'_, HostMemory>) -> Result<NeuNormOutput<HostMemory>> {
    let (spec, grid) = (call.spec, call.grid);
    let mut out = HostMemory::take(grid.len() * size_of::<E>())?;
    let steps = grid.t * grid.n * grid.s;
    let mut states_memory = HostMemory::take(steps * size_of::<E::Acc>())?;

    let x = call.x.memory.read()?;
    let x = x.slice::<E>(call.x.offset, grid.len());
    let weight = call.weight.memory.read()?;
    let weight = weight.slice::<E::Acc>(call.weight.offset, call.weight.len());
    let initial = call.state.map(|state| state.memory.read()).transpose()?;
    let initial = initial.as_ref().zip(call.state);
    let initial = initial.map(|(memory, state)| memory.slice::<E::Acc>(state.offset, state.len()));

    let strips = strips(grid, size_of::<E>(), 1);
    let ys = cut(&mut out.as_mut_slice::<E>()[..grid.len()], grid, grid.c, &strips);
    let states = cut(&mut states_memory.as_mut_slice::<E::Acc>()[..steps], grid, 1, &strips);
    let tasks: Vec<_> = strips.iter().zip(ys).zip(states).collect();
    let pass = ForwardPass { spec, grid, x, weight, initial };
    for_each(2 * size_of_val(x), tasks, |((strip, ys), states)| {
        forward_strip(&pass, strip, ys, states);
    })?;

    output::<E>(call, out, states_memory)
}

/// What a forward gives: its output, the state after the last of the steps' states `[T, N, S]`, and what backward needs.
pub fn output<E: Element>(
    call: &NeuNormForward<'_, HostMemory>,
    y: HostMemory,
    states: HostMemory,
) -> Result<NeuNormOutput<HostMemory>> {
    let (spec, grid) = (call.spec, call.grid);
    let states = CpuTensor::new(states, &[grid.t, grid.n, grid.s], <E::Acc as Element>::DTYPE);
    let last = states.rows(grid.t.saturating_sub(1), 1).reshape(&[grid.n, 1, spec.height, spec.width])?;
    // A view of the last step would hold all T states alive.
    let state = if grid.t > 1 { copy_of(&last)? } else { last };
    let saved = if call.record {
        Some(NeuNormSaved {
            spec: spec.clone(),
            grid,
            input_shape: call.x.shape.clone(),
            input_dtype: E::DTYPE,
            weight: copy_of(call.weight)?,
            states,
        })
    } else {
        None
    };
    Ok(NeuNormOutput { y: CpuTensor::new(y, &call.x.shape, E::DTYPE), state, saved })
}

pub fn backward<E: Element>(
    saved: &NeuNormSaved<HostMemory>,
    dy: &CpuTensor,
    carry: Option<&CpuTensor>,
) -> Result<NeuNormGrads<HostMemory>> {
    let (spec, grid) = (&saved.spec, saved.grid);
    let dtype = <E::Acc as Element>::DTYPE;
    let mut out = HostMemory::take(grid.len() * size_of::<E>())?;
    let mut state_grad = HostMemory::take(grid.n * grid.s * size_of::<E::Acc>())?;

    let dy_memory = dy.memory.read()?;
    let dy_values = dy_memory.slice::<E>(dy.offset, grid.len());
    let weight = saved.weight.memory.read()?;
    let weight = weight.slice::<E::Acc>(saved.weight.offset, saved.weight.len());
    let states = saved.states.memory.read()?;
    let states = states.slice::<E::Acc>(saved.states.offset, saved.states.len());
    let carried = carry.map(|tensor| tensor.memory.read()).transpose()?;
    let carried = carried.as_ref().zip(carry);
    let carried = carried.map(|(memory, tensor)| memory.slice::<E::Acc>(tensor.offset, tensor.len()));

    let samples = grid.n.div_ceil(GROUPS);
    let strips = strips(grid, 2 * size_of::<E>(), samples);
    let dxs = cut(&mut out.as_mut_slice::<E>()[..grid.len()], grid, grid.c, &strips);
    let lasts = cut(&mut state_grad.as_mut_slice::<E::Acc>()[..grid.n * grid.s], grid, 1, &strips);
    let tasks: Vec<_> = strips.iter().zip(dxs).zip(lasts).collect();
    let pass = BackwardPass { spec, grid, dy: dy_values, weight, states, carried };
    let partials = for_each(2 * size_of_val(dy_values), tasks, |((strip, dxs), lasts)| {
        backward_strip(&pass, strip, dxs, lasts)
    })?;
    let weight_rows = spec.weight_shape()[0];

    let weight_grad = Cpu.allocate(&spec.weight_shape(), dtype)?;
    {
        let mut memory = weight_grad.memory.write()?;
        let dw = memory.slice::<E::Acc>(0, weight_rows * grid.s);
        dw.fill(E::Acc::default());
        for (strip, partial) in strips.iter().zip(partials) {
            for (row, partial) in partial.chunks_exact(strip.p.max(1)).enumerate() {
                for (dw, part) in dw[row * grid.s + strip.p0..].iter_mut().zip(partial) {
                    *dw += *part;
                }
            }
        }
    }
    Ok(NeuNormGrads {
        dx: CpuTensor::new(out, &saved.input_shape, E::DTYPE),
        weight: weight_grad,
        state: CpuTensor::new(state_grad, &[grid.n, 1, spec.height, spec.width], dtype),
    })
}

/// `y = x − w·s` of a row's pixels.
struct Output<'a, E: Element> {
    x: &'a [E],
    w: &'a [E::Acc],
    state: &'a [E::Acc],
}

impl<E: Element> Fill<E> for Output<'_, E> {
    #[inline(always)]
    fn fill(&self, first: usize, out: &mut [E]) {
        let pixels = self.x[first..].iter().zip(&self.w[first..]).zip(&self.state[first..]);
        for (y, ((x, w), s)) in out.iter_mut().zip(pixels) {
            *y = E::store(x.load() - *w * *s);
        }
    }
}

/// `dx = dy + k1·δ` of a row's pixels.
struct InputGradient<'a, E: Element> {
    dy: &'a [E],
    delta: &'a [E::Acc],
    gain: E::Acc,
}

impl<E: Element> Fill<E> for InputGradient<'_, E> {
    #[inline(always)]
    fn fill(&self, first: usize, out: &mut [E]) {
        for (dx, (dy, d)) in out.iter_mut().zip(self.dy[first..].iter().zip(&self.delta[first..])) {
            *dx = E::store(dy.load() + self.gain * *d);
        }
    }
}

/// What every task of one forward reads.
struct ForwardPass<'a, E: Element> {
    spec: &'a NeuNormSpec,
    grid: Grid,
    x: &'a [E],
    weight: &'a [E::Acc],
    initial: Option<&'a [E::Acc]>,
}

vectorized! {
    /// One sample's strip through all time steps.
    fn forward_strip<'a, E: Element>(
        pass: &'a ForwardPass<'a, E>,
        strip: &'a Strip,
        ys: Vec<&'a mut [E]>,
        states: Vec<&'a mut [E::Acc]>,
    ) {
        let (mut ys, mut states) = (ys, states);
        let (spec, grid) = (pass.spec, pass.grid);
        let (keep, gain) = (E::Acc::from_f64(spec.k), E::Acc::from_f64(spec.input_gain()));
        let mut state = vec![E::Acc::default(); strip.p];
        if let Some(initial) = pass.initial {
            state.copy_from_slice(strip.state(grid, initial, 0, 0));
        }
        let mut total = vec![E::Acc::default(); strip.p];
        let streaming = strip.p >= STREAMED_PIXELS && size_of_val(pass.x) >= STREAMING_BYTES;
        for t in 0..grid.t {
            total.fill(E::Acc::default());
            for c in 0..grid.c {
                for (sum, x) in total.iter_mut().zip(strip.row(grid, pass.x, t, 0, c)) {
                    *sum += x.load();
                }
            }
            for (s, sum) in state.iter_mut().zip(&total) {
                *s = keep * *s + gain * *sum;
            }
            states[t].copy_from_slice(&state);
            for c in 0..grid.c {
                let x = strip.row(grid, pass.x, t, 0, c);
                let w = strip.weight(spec, grid.s, pass.weight, c);
                write(&mut *ys[t * grid.c + c], streaming, Output { x, w, state: &state });
            }
        }
        fence(streaming);
    }
}

/// What every task of one backward reads.
struct BackwardPass<'a, E: Element> {
    spec: &'a NeuNormSpec,
    grid: Grid,
    dy: &'a [E],
    weight: &'a [E::Acc],
    states: &'a [E::Acc],
    carried: Option<&'a [E::Acc]>,
}

vectorized! {
    /// A group of samples' strip, each from the last time step to the first; returns its share of dw.
    fn backward_strip<'a, E: Element>(
        pass: &'a BackwardPass<'a, E>,
        strip: &'a Strip,
        dxs: Vec<&'a mut [E]>,
        lasts: Vec<&'a mut [E::Acc]>,
    ) -> Vec<E::Acc> {
        let (mut dxs, mut lasts) = (dxs, lasts);
        let (spec, grid) = (pass.spec, pass.grid);
        let (keep, gain) = (E::Acc::from_f64(spec.k), E::Acc::from_f64(spec.input_gain()));
        let mut dw = vec![E::Acc::default(); spec.weight_shape()[0] * strip.p];
        let mut delta = vec![E::Acc::default(); strip.p];
        let mut total = vec![E::Acc::default(); strip.p];
        let streaming = strip.p >= STREAMED_PIXELS && size_of_val(pass.dy) >= STREAMING_BYTES;
        for n in 0..strip.n {
            delta.fill(E::Acc::default());
            if let Some(carried) = pass.carried {
                delta.copy_from_slice(strip.state(grid, carried, 0, n));
            }
            for t in (0..grid.t).rev() {
                total.fill(E::Acc::default());
                let state = strip.state(grid, pass.states, t, n);
                for c in 0..grid.c {
                    let w = strip.weight(spec, grid.s, pass.weight, c);
                    let dy = strip.row(grid, pass.dy, t, n, c);
                    let row = if spec.shared { 0 } else { c };
                    let dw = &mut dw[row * strip.p..][..strip.p];
                    for ((((sum, dw), w), s), dy) in total.iter_mut().zip(dw).zip(w).zip(state).zip(dy) {
                        let g = dy.load();
                        *sum += *w * g;
                        *dw -= g * *s;
                    }
                }
                // δ = −Σ w·dy + (gradient that came from later steps), which is carried on times k.
                for (d, sum) in delta.iter_mut().zip(&total) {
                    *d -= *sum;
                }
                for c in 0..grid.c {
                    let dx = &mut *dxs[(t * strip.n + n) * grid.c + c];
                    let dy = strip.row(grid, pass.dy, t, n, c);
                    write(dx, streaming, InputGradient { dy, delta: &delta, gain });
                }
                for d in &mut delta {
                    *d *= keep;
                }
            }
            lasts[n].copy_from_slice(&delta);
        }
        fence(streaming);
        dw
    }
}
