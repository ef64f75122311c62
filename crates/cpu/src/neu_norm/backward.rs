//! `δ_t = −Σ_c w·dy_t + k·δ_{t+1}`, `dx_t = dy_t + k1·δ_t`, `dw = −Σ_{t,n} dy_t·s_t`, a block of steps at a time: for all
//! of them the weight and its gradient, which are as large as a sample, are visited once.

use spikenorm_core::{NeuNormGrads, NeuNormSaved, NeuNormSpec, Result, workspace};

use super::strips::{COLUMNS, Strip, cut, cut_states, strips};
use super::{BackwardInputs, GROUPS, grads, take_grads};
use crate::HostMemory;
use crate::backend::{Cpu, CpuTensor};
use crate::element::{Element, Real};
use crate::parallel::for_each;
use crate::simd::vectorized;
use crate::stream::{Fill, STREAMING_BYTES, fence, write};

/// Steps of a block: their gradients have to stay in cache until their δ is known.
const STEPS: usize = 4;

/// Columns of a chunk, as in forward: there are states and sums of so many steps.
const CHUNK: usize = 1024 / STEPS;

/// What every task of one backward reads.
struct Pass<'a, E: Element> {
    spec: &'a NeuNormSpec,
    steps: usize,
    dy: &'a [E],
    weight: &'a [E::Acc],
    states: &'a [E::Acc],
    carried: Option<&'a [E::Acc]>,
}

pub fn backward<E: Element>(
    saved: &NeuNormSaved<HostMemory>,
    dy: &CpuTensor,
    carry: Option<&CpuTensor>,
) -> Result<NeuNormGrads<HostMemory>> {
    let (spec, grid) = (&saved.spec, saved.grid);
    let [mut out, mut state_grad] = take_grads(grid, E::DTYPE)?;
    let inputs = BackwardInputs::of(saved, dy, carry)?;
    let (dy, weight, states) = (inputs.dy.slice::<E>(), inputs.weight.slice(), inputs.states.slice());
    let carried = inputs.carried();
    let pass = Pass { spec, steps: grid.t, dy, weight, states, carried };

    let strips = strips(grid, size_of::<E>(), grid.n.div_ceil(GROUPS), CHUNK)?;
    let width = |strip: &Strip| if spec.shared { strip.columns() } else { strip.values() };
    let total: usize = strips.iter().map(width).sum();
    let mut partials = HostMemory::take(total * size_of::<E::Acc>())?;
    let mut rest = &mut partials.as_mut_slice::<E::Acc>()[..total];

    let dxs = cut(&mut out.as_mut_slice::<E>()[..grid.len()], grid, &strips)?;
    let lasts = cut_states(&mut state_grad.as_mut_slice::<E::Acc>()[..grid.n * grid.s], grid, 1, &strips)?;
    let mut tasks = workspace::with_capacity(strips.len())?;
    for ((strip, dxs), lasts) in strips.iter().zip(dxs).zip(lasts) {
        let dw = rest.split_off_mut(..width(strip)).unwrap_or_default();
        tasks.push((strip, dxs, lasts, dw));
    }
    for_each(2 * size_of_val(dy), tasks, |(strip, dxs, lasts, dw)| {
        backward_strip(&pass, strip, dxs, lasts, dw)
    })?;

    let weight_grad = Cpu.allocate(&spec.weight_shape(), <E::Acc as Element>::DTYPE)?;
    {
        let mut memory = weight_grad.memory.write()?;
        let dw = memory.slice::<E::Acc>(0, weight_grad.len());
        add_partials(dw, grid.s, spec.shared, &strips, &partials.as_mut_slice::<E::Acc>()[..total])?;
    }
    Ok(grads(saved, E::DTYPE, out, weight_grad, state_grad))
}

/// Adds the strips' gradients of the weight up, in their order.
fn add_partials<A: Real>(
    dw: &mut [A],
    s: usize,
    shared: bool,
    strips: &[Strip],
    partials: &[A],
) -> Result<()> {
    if s == 0 {
        return Ok(());
    }
    let rows = workspace::collect(dw.chunks_exact_mut(s).enumerate())?;
    for_each(size_of_val(partials), rows, |(row, dw)| {
        dw.fill(A::default());
        let mut rest = partials;
        for strip in strips {
            let (columns, values) = (strip.columns(), strip.values());
            let partial = rest.split_off(..if shared { columns } else { values }).unwrap_or_default();
            let dw = &mut dw[strip.p0..][..strip.pixels];
            let own = if shared { partial } else { &partial[row * strip.pixels..][..strip.pixels] };
            for copy in own.chunks_exact(strip.pixels) {
                for (dw, part) in dw.iter_mut().zip(copy) {
                    *dw += *part;
                }
            }
        }
        Ok(())
    })?;
    Ok(())
}

/// `dx = dy + k1·δ`, column by column.
struct InputGradient<'a, E: Element> {
    dy: &'a [E],
    change: &'a [E::Acc],
}

impl<E: Element> Fill<E::Acc> for InputGradient<'_, E> {
    #[inline(always)]
    fn fill(&self, first: usize, out: &mut [E::Acc]) {
        let len = out.len();
        let (dy, change) = (&self.dy[first..][..len], &self.change[first..][..len]);
        for j in 0..len {
            out[j] = dy[j].load() + change[j];
        }
    }
}

vectorized! {
    /// A group of samples' strip, each from the last time step to the first. `dw`: the strip's share of the weight's
    /// gradient, its chunks one after the other, or one chunk for all where the weight is shared.
    fn backward_strip<'a, E: Element>(
        pass: &'a Pass<'a, E>,
        strip: &'a Strip,
        dxs: Vec<&'a mut [E]>,
        lasts: Vec<&'a mut [E::Acc]>,
        dw: &'a mut [E::Acc],
    ) -> Result<()> {
        let (mut dxs, spec) = (dxs, pass.spec);
        let (keep, gain) = (E::Acc::from_f64(spec.k), E::Acc::from_f64(spec.input_gain()));
        let columns = strip.columns();
        dw.fill(E::Acc::default());
        let zeros = |len| workspace::zeros(len);
        let mut states = zeros(STEPS * columns)?;
        let mut sums = zeros(STEPS * columns)?;
        let mut change = zeros(strip.pixels)?;
        let mut wide = zeros(columns)?;
        let mut shared = zeros(if spec.shared { columns } else { 0 })?;
        if spec.shared {
            strip.repeat(strip.of_row(pass.weight), &mut shared);
        }
        let streaming = columns >= 2 * COLUMNS && size_of_val(pass.dy) >= STREAMING_BYTES;
        let pieces = dxs.len() / (pass.steps * strip.n).max(1);
        for (n, delta) in lasts.into_iter().enumerate() {
            match pass.carried {
                Some(carried) => delta.copy_from_slice(strip.of_state(carried, 0, n)),
                None => delta.fill(E::Acc::default()),
            }
            let mut end = pass.steps;
            while end > 0 {
                let start = end.saturating_sub(STEPS);
                let mut slabs: [&[E]; STEPS] = [&[]; STEPS];
                for t in start..end {
                    let k = t - start;
                    slabs[k] = strip.slab(pass.dy, t, n);
                    strip.repeat(strip.of_state(pass.states, t, n), &mut states[k * columns..][..columns]);
                }
                let slabs = &slabs[..end - start];
                sums.fill(E::Acc::default());
                for index in 0..strip.chunks() {
                    let dw = if spec.shared { &mut *dw } else { &mut dw[index * columns..] };
                    let w = if spec.shared { &shared } else { strip.chunk(pass.weight, index) };
                    add_products(strip, slabs, index, w, &states, dw, &mut sums);
                }
                for t in (start..end).rev() {
                    let sums = strip.add_copies(&mut sums[(t - start) * columns..][..columns]);
                    // δ = −Σ w·dy + (gradient that came from later steps), which is carried on times k.
                    for ((d, change), sum) in delta.iter_mut().zip(&mut change).zip(sums) {
                        *d -= *sum;
                        *change = gain * *d;
                        *d = keep * *d;
                    }
                    strip.repeat(&change, &mut wide);
                    let dxs = dxs[(t * strip.n + n) * pieces..][..pieces].iter_mut();
                    let dxs = dxs.flat_map(|piece| piece.chunks_mut(columns));
                    for (index, dx) in dxs.enumerate() {
                        let dy = strip.chunk(slabs[t - start], index);
                        write(dx, streaming, InputGradient { dy, change: &wide });
                    }
                }
                end = start;
            }
        }
        fence(streaming);
        Ok(())
    }
}

/// One chunk of a block of steps: adds w·dy to each step's sums and takes dy·s from the weight's gradient. In blocks of
/// columns, as `add` of forward.
#[inline(always)]
fn add_products<E: Element>(
    strip: &Strip,
    slabs: &[&[E]],
    index: usize,
    w: &[E::Acc],
    states: &[E::Acc],
    dw: &mut [E::Acc],
    sums: &mut [E::Acc],
) {
    let columns = strip.columns();
    let len = slabs.first().map_or(0, |slab| strip.chunk(slab, index).len());
    let (w, dw) = (&w[..len], &mut dw[..len]);
    let whole = len / COLUMNS * COLUMNS;
    let (w_blocks, _) = w.as_chunks::<COLUMNS>();
    let (dw_blocks, _) = dw.as_chunks_mut::<COLUMNS>();
    for (at, (w, dw)) in w_blocks.iter().zip(dw_blocks).enumerate() {
        let (w, mut gradient) = (*w, *dw);
        for (k, slab) in slabs.iter().enumerate() {
            let (from, dy) = (k * columns + at * COLUMNS, &strip.chunk(slab, index)[at * COLUMNS..]);
            let Some(dy) = dy.first_chunk::<COLUMNS>() else { continue };
            let Some(s) = states[from..].first_chunk::<COLUMNS>() else { continue };
            let Some(sums) = sums[from..].first_chunk_mut::<COLUMNS>() else { continue };
            let (g, s, mut sum) = (E::load_block(dy), *s, *sums);
            for i in 0..COLUMNS {
                sum[i] = E::mul_add(w[i], g[i], sum[i]);
            }
            for i in 0..COLUMNS {
                gradient[i] = E::mul_add(-g[i], s[i], gradient[i]);
            }
            *sums = sum;
        }
        *dw = gradient;
    }
    for (k, slab) in slabs.iter().enumerate() {
        let dy = &strip.chunk(slab, index)[whole..];
        let left = k * columns + whole..k * columns + len;
        let small = w[whole..].iter().zip(&mut dw[whole..]).zip(&states[left.clone()]);
        for ((((w, dw), s), sum), dy) in small.zip(&mut sums[left]).zip(dy) {
            let g = dy.load();
            *sum += *w * g;
            *dw -= g * *s;
        }
    }
}
