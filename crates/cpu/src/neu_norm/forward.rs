//! `s_t = k·s_{t−1} + k1·Σ_c x_t`, `y_t = x_t − w·s_t`: two visits to each step of a strip, the second to what is in cache.

use spikenorm_core::{NeuNormForward, NeuNormOutput, NeuNormSpec, Result, workspace};

use super::strips::{COLUMNS, Strip, cut, cut_states, strips};
use super::{Values, output};
use crate::HostMemory;
use crate::element::{Element, Real};
use crate::parallel::for_each;
use crate::simd::vectorized;
use crate::stream::{Fill, STREAMING_BYTES, fence, write};

/// Columns of a chunk: loops should be long, and their state and sums be in the first-level cache.
const CHUNK: usize = 1024;
/// Chunks added at a time, so that the sums are loaded and stored less often.
const ROWS: usize = 8;

/// What every task of one forward reads.
struct Pass<'a, E: Element> {
    spec: &'a NeuNormSpec,
    x: &'a [E],
    weight: &'a [E::Acc],
    initial: Option<&'a [E::Acc]>,
}

pub fn forward<E: Element>(call: &NeuNormForward<'_, HostMemory>) -> Result<NeuNormOutput<HostMemory>> {
    let (spec, grid) = (call.spec, call.grid);
    let mut out = HostMemory::take(grid.len() * size_of::<E>())?;
    let steps = grid.t * grid.n * grid.s;
    let mut states_memory = HostMemory::take(steps * size_of::<E::Acc>())?;

    let (x, weight) = (Values::of(call.x)?, Values::of(call.weight)?);
    let initial = call.state.map(Values::of).transpose()?;
    let initial = initial.as_ref().map(Values::slice);
    let pass = Pass { spec, x: x.slice::<E>(), weight: weight.slice(), initial };

    let strips = strips(grid, size_of::<E>(), 1, CHUNK)?;
    let ys = cut(&mut out.as_mut_slice::<E>()[..grid.len()], grid, &strips)?;
    let states = cut_states(&mut states_memory.as_mut_slice::<E::Acc>()[..steps], grid, 1, &strips)?;
    let tasks = workspace::collect(strips.iter().zip(ys).zip(states))?;
    for_each(2 * size_of_val(pass.x), tasks, |((strip, ys), states)| {
        forward_strip(&pass, strip, ys, states)
    })?;
    output(call, out, states_memory)
}

/// `y = x − w·s`, column by column.
struct Output<'a, E: Element> {
    x: &'a [E],
    w: &'a [E::Acc],
    state: &'a [E::Acc],
}

impl<E: Element> Fill<E::Acc> for Output<'_, E> {
    #[inline(always)]
    fn fill(&self, first: usize, out: &mut [E::Acc]) {
        let len = out.len();
        let (x, w, s) = (&self.x[first..][..len], &self.w[first..][..len], &self.state[first..][..len]);
        for j in 0..len {
            out[j] = x[j].load() - w[j] * s[j];
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
        let spec = pass.spec;
        let (keep, gain) = (E::Acc::from_f64(spec.k), E::Acc::from_f64(spec.input_gain()));
        let columns = strip.columns();
        let zeros = |len| workspace::zeros(len);
        let mut state = zeros(strip.pixels)?;
        if let Some(initial) = pass.initial {
            state.copy_from_slice(strip.of_state(initial, 0, 0));
        }
        // The state, the sums over channels and a shared weight, column by column.
        let mut wide = zeros(columns)?;
        let mut sums = zeros(columns)?;
        let mut shared = zeros(if spec.shared { columns } else { 0 })?;
        if spec.shared {
            strip.repeat(strip.of_row(pass.weight), &mut shared);
        }
        let streaming = columns >= 2 * COLUMNS && size_of_val(pass.x) >= STREAMING_BYTES;
        let mut ys = ys.into_iter().flat_map(|piece| piece.chunks_mut(columns));
        for (t, out) in states.into_iter().enumerate() {
            let x = strip.slab(pass.x, t, 0);
            sum_chunks(strip, x, &mut sums);
            for (s, sum) in state.iter_mut().zip(strip.add_copies(&mut sums)) {
                *s = keep * *s + gain * *sum;
            }
            out.copy_from_slice(&state);
            strip.repeat(&state, &mut wide);
            for (index, y) in ys.by_ref().take(strip.chunks()).enumerate() {
                let x = strip.chunk(x, index);
                let w = if spec.shared { &shared[..x.len()] } else { strip.chunk(pass.weight, index) };
                write(y, streaming, Output { x, w, state: &wide });
            }
        }
        fence(streaming);
        Ok(())
    }
}

/// The sum of a slab's chunks, column by column.
#[inline(always)]
fn sum_chunks<E: Element>(strip: &Strip, x: &[E], sums: &mut [E::Acc]) {
    sums.fill(E::Acc::default());
    let whole = strip.values() / strip.columns();
    let mut index = 0;
    while index + ROWS <= whole {
        let mut rows: [&[E]; ROWS] = [&[]; ROWS];
        for (k, row) in rows.iter_mut().enumerate() {
            *row = strip.chunk(x, index + k);
        }
        add(rows, sums);
        index += ROWS;
    }
    for index in index..strip.chunks() {
        add([strip.chunk(x, index)], sums);
    }
}

/// Adds K rows to the columns' sums. A block of sums is copied, added to and written back, since the compiler cannot see
/// that the rows do not overlap with them.
#[inline(always)]
fn add<E: Element, const K: usize>(rows: [&[E]; K], sums: &mut [E::Acc]) {
    let len = rows[0].len();
    let (blocks, left) = sums[..len].as_chunks_mut::<COLUMNS>();
    for (at, sums) in blocks.iter_mut().enumerate() {
        let mut sum = *sums;
        for row in rows {
            let x = &row[at * COLUMNS..][..COLUMNS];
            for i in 0..COLUMNS {
                sum[i] += x[i].load();
            }
        }
        *sums = sum;
    }
    for row in rows {
        for (sum, x) in left.iter_mut().zip(&row[len / COLUMNS * COLUMNS..]) {
            *sum += x.load();
        }
    }
}
