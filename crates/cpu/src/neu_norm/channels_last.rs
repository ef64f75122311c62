//! NeuNorm on the CPU where the channels come last, `[T, N, S, C]`: a pixel's channels lie side by side, so that
//! their sum, the state and the output are one visit of a few hundred bytes. A task owns one sample, or in backward a
//! group of them (or a strip of their pixels, where a sample is large), and walks t inside.
//!
//! The weight `[C, S]` is turned to `[S, C]` once per pass and its gradient back: C·S values beside the T·N·C·S of the
//! tensor.

use spikenorm_core::{
    Grid, NeuNormForward, NeuNormGrads, NeuNormOutput, NeuNormSaved, NeuNormSpec, Result, workspace,
};

use super::{BackwardInputs, GROUPS, Values, grads, output, take_grads};
use crate::HostMemory;
use crate::backend::{Cpu, CpuTensor};
use crate::element::{Element, Real};
use crate::parallel::for_each;
use crate::simd::vectorized;
use crate::stream::{Fill, write};

/// Bytes of one time step's piece of a task.
const STRIP_BYTES: usize = 256 << 10;
/// Channels at a time, and partial sums side by side in a sum over them; see `norm::kernels_long` for why not fewer.
const LANES: usize = 32;

/// Some pixels of some samples, all channels and time steps.
#[derive(Clone, Copy)]
struct Strip {
    n0: usize,
    n: usize,
    p0: usize,
    p: usize,
}

/// Strips in a fixed order: groups of `samples` samples outside, pixels inside.
fn strips(grid: Grid, size: usize, samples: usize) -> Result<Vec<Strip>> {
    let p = (STRIP_BYTES / (grid.c * size).max(1)).clamp(1, grid.s.max(1));
    let mut all = Vec::new();
    for n0 in (0..grid.n).step_by(samples.max(1)) {
        for p0 in (0..grid.s).step_by(p) {
            let strip = Strip { n0, n: samples.min(grid.n - n0), p0, p: p.min(grid.s - p0) };
            workspace::push(&mut all, strip)?;
        }
    }
    Ok(all)
}

impl Strip {
    /// The strip's piece of step `t` and its sample `n`, in data of `width` values per pixel.
    #[inline(always)]
    fn piece<'a, E>(&self, grid: Grid, data: &'a [E], width: usize, t: usize, n: usize) -> &'a [E] {
        let start = ((t * grid.n + self.n0 + n) * grid.s + self.p0) * width;
        &data[start..start + self.p * width]
    }
}

/// Cuts data of `width` values per pixel into the strips' pieces, for each strip in the order of (t, n).
fn cut<'a, E>(out: &'a mut [E], grid: Grid, width: usize, strips: &[Strip]) -> Result<Vec<Vec<&'a mut [E]>>> {
    let mut all: Vec<Vec<&mut [E]>> = workspace::collect(strips.iter().map(|_| Vec::new()))?;
    let Some(first) = strips.first() else { return Ok(all) };
    let per_group = grid.s.div_ceil(first.p);
    for (index, sample) in out.chunks_exact_mut(grid.s * width).enumerate() {
        let group = index % grid.n / first.n * per_group;
        for (piece, list) in sample.chunks_mut(first.p * width).zip(&mut all[group..]) {
            workspace::push(list, piece)?;
        }
    }
    Ok(all)
}

/// `[rows, columns]` to `[columns, rows]`, in squares that stay in the cache.
fn transpose<A: Real>(source: &[A], columns: usize, target: &mut [A]) {
    const SIDE: usize = 16;
    let rows = source.len() / columns.max(1);
    for r0 in (0..rows).step_by(SIDE) {
        for c0 in (0..columns).step_by(SIDE) {
            for c in c0..(c0 + SIDE).min(columns) {
                let to = &mut target[c * rows + r0..(c + 1) * rows];
                let from = source[r0 * columns + c..].iter().step_by(columns).take(SIDE);
                to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            }
        }
    }
}

/// A weight `[rows, S]` as `[S, rows]`.
#[inline(never)]
fn turned<A: Real>(weight: &CpuTensor, s: usize) -> Result<HostMemory> {
    let mut memory = HostMemory::take(weight.bytes())?;
    let source = Values::of(weight)?;
    let source = source.slice::<A>();
    transpose(source, s, &mut memory.as_mut_slice::<A>()[..source.len()]);
    Ok(memory)
}

pub fn forward<E: Element>(call: &NeuNormForward<'_, HostMemory>) -> Result<NeuNormOutput<HostMemory>> {
    let (spec, grid) = (call.spec, call.grid);
    let mut out = HostMemory::take(grid.len() * size_of::<E>())?;
    let steps = grid.t * grid.n * grid.s;
    let mut states_memory = HostMemory::take(steps * size_of::<E::Acc>())?;
    let weight = turned::<E::Acc>(call.weight, grid.s)?;
    let weight = weight.read()?;

    let x = Values::of(call.x)?;
    let x = x.slice::<E>();
    let initial = call.state.map(Values::of).transpose()?;
    let initial = initial.as_ref().map(Values::slice);

    let strips = strips(grid, size_of::<E>(), 1)?;
    let ys = cut(&mut out.as_mut_slice::<E>()[..grid.len()], grid, grid.c, &strips)?;
    let states = cut(&mut states_memory.as_mut_slice::<E::Acc>()[..steps], grid, 1, &strips)?;
    let tasks = workspace::collect(strips.iter().zip(ys).zip(states))?;
    let weight = weight.slice(0, call.weight.len());
    let pass = Pass { spec, grid, input: x, weight, states: &[], initial };
    for_each(2 * size_of_val(x), tasks, |((strip, ys), states)| forward_strip(&pass, strip, ys, states))?;

    output(call, out, states_memory)
}

pub fn backward<E: Element>(
    saved: &NeuNormSaved<HostMemory>,
    dy: &CpuTensor,
    carry: Option<&CpuTensor>,
) -> Result<NeuNormGrads<HostMemory>> {
    let (spec, grid) = (&saved.spec, saved.grid);
    let [mut out, mut state_grad] = take_grads(grid, E::DTYPE)?;
    let weight = turned::<E::Acc>(&saved.weight, grid.s)?;
    let weight = weight.read()?;
    let inputs = BackwardInputs::of(saved, dy, carry)?;
    let (dy, states, carried) = (inputs.dy.slice::<E>(), inputs.states.slice(), inputs.carried());

    let strips = strips(grid, 2 * size_of::<E>(), grid.n.div_ceil(GROUPS))?;
    let dxs = cut(&mut out.as_mut_slice::<E>()[..grid.len()], grid, grid.c, &strips)?;
    let lasts = cut(&mut state_grad.as_mut_slice::<E::Acc>()[..grid.n * grid.s], grid, 1, &strips)?;
    let tasks = workspace::collect(strips.iter().zip(dxs).zip(lasts))?;
    let weight = weight.slice(0, saved.weight.len());
    let pass = Pass { spec, grid, input: dy, weight, states, initial: carried };
    let partials = for_each(2 * size_of_val(dy), tasks, |((strip, dxs), lasts)| {
        backward_strip(&pass, strip, dxs, lasts)
    })?;

    let weight_grad = add_partials(spec, grid.s, &strips, partials)?;
    Ok(grads(saved, E::DTYPE, out, weight_grad, state_grad))
}

/// The gradient of the weight `[rows, S]`: the strips' shares `[p, rows]` added up, in their order.
#[inline(never)]
fn add_partials<A: Real>(
    spec: &NeuNormSpec,
    s: usize,
    strips: &[Strip],
    partials: Vec<Vec<A>>,
) -> Result<CpuTensor> {
    let weight_grad = Cpu.allocate(&spec.weight_shape(), A::DTYPE)?;
    let rows = spec.weight_shape()[0];
    let mut turned = workspace::zeros(rows * s)?;
    for (strip, partial) in strips.iter().zip(partials) {
        for (dw, part) in turned[strip.p0 * rows..].iter_mut().zip(partial) {
            *dw += part;
        }
    }
    transpose(&turned, rows, weight_grad.memory.write()?.slice::<A>(0, rows * s));
    Ok(weight_grad)
}

/// What every task of one pass reads.
struct Pass<'a, E: Element> {
    spec: &'a NeuNormSpec,
    grid: Grid,
    /// x, or dy in backward.
    input: &'a [E],
    /// `[S, C]`, or `[S]` shared over channels.
    weight: &'a [E::Acc],
    /// Saved by forward; for backward alone.
    states: &'a [E::Acc],
    /// State before the first step, or in backward the gradient of the one after the last.
    initial: Option<&'a [E::Acc]>,
}

/// Adds up the lanes, in a fixed order.
#[inline(always)]
fn fold<A: Real>(mut lanes: [A; LANES]) -> A {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            let other = lanes[lane + width];
            lanes[lane] += other;
        }
        width /= 2;
    }
    lanes[0]
}

/// Σ x.
#[inline(always)]
fn sum<E: Element>(x: &[E]) -> E::Acc {
    if x.len() < LANES {
        return x.iter().fold(E::Acc::default(), |sum, x| sum + x.load());
    }
    let mut lanes = [E::Acc::default(); LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        let block = E::load_block(block);
        for i in 0..LANES {
            lanes[i] += block[i];
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += x.load();
    }
    fold(lanes)
}

/// Σ w·dy, and takes dy·s from the weight's gradient.
#[inline(always)]
fn products<E: Element>(dy: &[E], w: &[E::Acc], s: E::Acc, dw: &mut [E::Acc]) -> E::Acc {
    if dy.len() < LANES {
        let mut sum = E::Acc::default();
        for ((dy, w), dw) in dy.iter().zip(w).zip(dw) {
            sum += *w * dy.load();
            *dw -= dy.load() * s;
        }
        return sum;
    }
    let mut lanes = [E::Acc::default(); LANES];
    let (dy, dy_rest) = dy.as_chunks::<LANES>();
    let (w, w_rest) = w.as_chunks::<LANES>();
    let (dw, dw_rest) = dw.as_chunks_mut::<LANES>();
    for ((dy, w), dw) in dy.iter().zip(w).zip(dw) {
        // By value, so that the compiler need not ask whether what is read is what is written.
        let (dy, w, mut gradient) = (E::load_block(dy), *w, *dw);
        for i in 0..LANES {
            lanes[i] = E::mul_add(w[i], dy[i], lanes[i]);
        }
        for i in 0..LANES {
            gradient[i] = E::mul_add(-dy[i], s, gradient[i]);
        }
        *dw = gradient;
    }
    for (((lane, dy), w), dw) in lanes.iter_mut().zip(dy_rest).zip(w_rest).zip(dw_rest) {
        *lane += *w * dy.load();
        *dw -= dy.load() * s;
    }
    fold(lanes)
}

/// `y = x − w·s` of a pixel's channels.
struct Output<'a, E: Element> {
    x: &'a [E],
    w: &'a [E::Acc],
    s: E::Acc,
}

impl<E: Element> Fill<E::Acc> for Output<'_, E> {
    #[inline(always)]
    fn fill(&self, first: usize, out: &mut [E::Acc]) {
        let (x, w) = (&self.x[first..][..out.len()], &self.w[first..][..out.len()]);
        for ((y, x), w) in out.iter_mut().zip(x).zip(w) {
            *y = x.load() - *w * self.s;
        }
    }
}

/// All of a pixel's channels changed by the same.
struct Shifted<'a, E: Element> {
    x: &'a [E],
    change: E::Acc,
}

impl<E: Element> Fill<E::Acc> for Shifted<'_, E> {
    #[inline(always)]
    fn fill(&self, first: usize, out: &mut [E::Acc]) {
        for (y, x) in out.iter_mut().zip(&self.x[first..]) {
            *y = x.load() + self.change;
        }
    }
}

vectorized! {
    /// One sample's strip through all time steps.
    fn forward_strip<'a, E: Element>(
        pass: &'a Pass<'a, E>,
        strip: &'a Strip,
        ys: Vec<&'a mut [E]>,
        states: Vec<&'a mut [E::Acc]>,
    ) -> Result<()> {
        let (spec, grid) = (pass.spec, pass.grid);
        let (keep, gain) = (E::Acc::from_f64(spec.k), E::Acc::from_f64(spec.input_gain()));
        let rows = if spec.shared { 1 } else { grid.c };
        let weight = &pass.weight[strip.p0 * rows..(strip.p0 + strip.p) * rows];
        let mut state = workspace::zeros(strip.p)?;
        if let Some(initial) = pass.initial {
            state.copy_from_slice(strip.piece(grid, initial, 1, 0, 0));
        }
        for (t, (y, out)) in ys.into_iter().zip(states).enumerate() {
            let x = strip.piece(grid, pass.input, grid.c, t, 0).chunks_exact(grid.c);
            let pixels = x.zip(y.chunks_exact_mut(grid.c)).zip(weight.chunks_exact(rows)).zip(&mut state);
            for (((x, y), w), s) in pixels {
                *s = keep * *s + gain * sum(x);
                if spec.shared {
                    write(y, false, Shifted { x, change: -(w[0] * *s) });
                } else {
                    write(y, false, Output { x, w, s: *s });
                }
            }
            out.copy_from_slice(&state);
        }
        Ok(())
    }
}

vectorized! {
    /// A group of samples' strip, each from the last time step to the first; returns its share of dw, `[p, C]` (or `[p]`).
    fn backward_strip<'a, E: Element>(
        pass: &'a Pass<'a, E>,
        strip: &'a Strip,
        dxs: Vec<&'a mut [E]>,
        lasts: Vec<&'a mut [E::Acc]>,
    ) -> Result<Vec<E::Acc>> {
        let (mut dxs, mut lasts) = (dxs, lasts);
        let (spec, grid) = (pass.spec, pass.grid);
        let (keep, gain) = (E::Acc::from_f64(spec.k), E::Acc::from_f64(spec.input_gain()));
        let rows = if spec.shared { 1 } else { grid.c };
        let weight = &pass.weight[strip.p0 * rows..(strip.p0 + strip.p) * rows];
        let mut dw = workspace::zeros(strip.p * rows)?;
        for (n, delta) in lasts.iter_mut().enumerate() {
            match pass.initial {
                Some(carried) => delta.copy_from_slice(strip.piece(grid, carried, 1, 0, n)),
                None => delta.fill(E::Acc::default()),
            }
            for t in (0..grid.t).rev() {
                let dy = strip.piece(grid, pass.input, grid.c, t, n).chunks_exact(grid.c);
                let dx = dxs[t * strip.n + n].chunks_exact_mut(grid.c);
                let state = strip.piece(grid, pass.states, 1, t, n);
                let small = weight.chunks_exact(rows).zip(dw.chunks_exact_mut(rows)).zip(state);
                for (((dy, dx), ((w, dw), s)), d) in dy.zip(dx).zip(small).zip(delta.iter_mut()) {
                    // δ = −Σ w·dy + (gradient that came from later steps), which is carried on times k.
                    if spec.shared {
                        let sum = sum(dy);
                        *d -= w[0] * sum;
                        dw[0] -= sum * *s;
                    } else {
                        *d -= products(dy, w, *s, dw);
                    }
                    write(dx, false, Shifted { x: dy, change: gain * *d });
                    *d *= keep;
                }
            }
        }
        Ok(dw)
    }
}
