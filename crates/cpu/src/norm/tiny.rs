//! One time step of a tensor that a core holds in its first-level caches, as an inference or training loop in step mode
//! 's' meets it thousands of times a second. There, tiles, tasks and vectors of coefficients cost more than the
//! arithmetic: this is one loop over the channels, which sums, moves the running statistics and writes, and allocates
//! nothing but what it returns. The formulas are those of `spikenorm_core::norm` for T = 1; all sums are in float64.
#![allow(
    clippy::needless_range_loop,
    reason = "arrays of one length, side by side: an index reads better than zips of five"
)]

use std::ops::Range;
use std::sync::Arc;

use spikenorm_core::norm::{
    DxCoefficients, NormForward, NormGrads, NormOutput, NormSaved, Statistics, inverse_std,
};
use spikenorm_core::{DType, Grid, Result};

use crate::HostMemory;
use crate::backend::CpuTensor;
use crate::element::{Element, Real};
use crate::four::{Four, InFours};
use crate::memory::Reading;
use crate::simd::{beyond_baseline, vectorized};
use crate::tensor_ops::copy_of;

/// Bytes of an input up to which this is the faster way.
const TINY_BYTES: usize = 32 << 10;
/// Values written at once.
const WIDTH: usize = 8;
/// Values of the shortest rows that are treated one by one. For shorter ones whole slabs are better.
const SHORTEST_ROW: usize = 8;
/// Channels whose sums are taken one after the other before any of them is used: their latencies overlap.
const BLOCK: usize = 16;

/// Whether a pass over `grid` is to be done here, as `element::fast::F32`. Calls this small are rare in other types and on
/// processors of the baseline: loops for them would take tens of kilobytes of the binary each.
pub fn fits(dtype: DType, grid: Grid) -> bool {
    dtype == DType::F32
        && beyond_baseline()
        && grid.t == 1
        && grid.n > 0
        && grid.s >= SHORTEST_ROW
        && grid.len() * dtype.size() <= TINY_BYTES
}

/// Where the rows of a channel are in a tensor, one per sample.
#[inline(always)]
fn rows(grid: Grid, c: usize) -> impl Iterator<Item = Range<usize>> {
    (0..grid.n).map(move |n| {
        let start = (n * grid.c + c) * grid.s;
        start..start + grid.s
    })
}

/// K sums over the rows of each channel of a block: of `four` of four values side by side of x and of dy, or of `one` of
/// what is left of a row. Both are told the channel, counted in the block.
#[inline(always)]
fn block_sums<E: InFours, const K: usize>(
    grid: Grid,
    channels: Range<usize>,
    [x, dy]: [&[E]; 2],
    four: impl Fn(usize, E::Four, E::Four) -> [E::Four; K],
    one: impl Fn(usize, f64, f64) -> [f64; K],
) -> [[f64; BLOCK]; K] {
    let mut all = [[0.0; BLOCK]; K];
    for first in (0..channels.len()).step_by(4) {
        let mut sums = [[E::Four::splat(0.0); 4]; K];
        let mut rest = [[0.0; 4]; K];
        for j in 0..4 {
            // Past the last channel, that one again: nobody looks there.
            let i = (first + j).min(channels.len() - 1);
            // Of their own, to stay in registers.
            let (mut sum, mut left) = ([E::Four::splat(0.0); K], [0.0; K]);
            for row in rows(grid, channels.start + i) {
                let (x_fours, x_left) = x[row.clone()].as_chunks::<4>();
                let (dy_fours, dy_left) = dy[row].as_chunks::<4>();
                for (x, dy) in x_fours.iter().zip(dy_fours) {
                    let values = four(i, E::four(x), E::four(dy));
                    for k in 0..K {
                        sum[k] = sum[k] + values[k];
                    }
                }
                for (x, dy) in x_left.iter().zip(dy_left) {
                    let values = one(i, x.load().to_f64(), dy.load().to_f64());
                    for k in 0..K {
                        left[k] += values[k];
                    }
                }
            }
            for k in 0..K {
                (sums[k][j], rest[k][j]) = (sum[k], left[k]);
            }
        }
        for k in 0..K {
            let totals = E::Four::totals(sums[k]);
            for j in 0..4 {
                all[k][first + j] = totals[j] + rest[k][j];
            }
        }
    }
    all
}

/// Writes a function of the values of two rows. A chunk is read whole before it is written: the compiler cannot know
/// that the rows do not overlap, and would go value by value.
#[inline(always)]
fn write_row<E: Element>(a: &[E], b: &[E], out: &mut [E], f: impl Fn(E, E) -> E) {
    let (a_chunks, a_rest) = a.as_chunks::<WIDTH>();
    let (b_chunks, b_rest) = b.as_chunks::<WIDTH>();
    let (out_chunks, out_rest) = out.as_chunks_mut::<WIDTH>();
    for ((a, b), out) in a_chunks.iter().zip(b_chunks).zip(out_chunks) {
        let mut chunk = [E::default(); WIDTH];
        for i in 0..WIDTH {
            chunk[i] = f(a[i], b[i]);
        }
        *out = chunk;
    }
    for ((a, b), out) in a_rest.iter().zip(b_rest).zip(out_rest) {
        *out = f(*a, *b);
    }
}

/// Running statistics in place, and how far they move.
struct Moving<'a, A> {
    mean: &'a mut [A],
    var: &'a mut [A],
    factor: f64,
    /// R/(R − 1).
    unbiased: f64,
}

enum Source<'a, A> {
    Batch(Option<Moving<'a, A>>),
    Running { mean: &'a [A], var: &'a [A] },
}

struct ForwardPass<'a, E: Element> {
    grid: Grid,
    eps: f64,
    x: &'a [E],
    y: &'a mut [E],
    weight: Option<&'a [E::Acc]>,
    bias: Option<&'a [E::Acc]>,
    scale: f64,
    source: Source<'a, E::Acc>,
    /// Mean and 1/√(v + eps), `[2, C]`.
    kept: Option<&'a mut [f64]>,
}

vectorized! {
    fn sweep_forward<'a, E: InFours>(pass: ForwardPass<'a, E>) {
        let grid = pass.grid;
        // Loops of known length for the smallest feature maps that are common.
        match (grid.n, grid.s) {
            (1, 16) => forward_blocks(pass, Grid { n: 1, s: 16, ..grid }),
            (1, 64) => forward_blocks(pass, Grid { n: 1, s: 64, ..grid }),
            _ => forward_blocks(pass, grid),
        }
    }
}

#[inline(always)]
fn forward_blocks<E: InFours>(pass: ForwardPass<'_, E>, grid: Grid) {
    let ForwardPass { eps, x, y, weight, bias, scale, mut source, mut kept, .. } = pass;
    let inverse = 1.0 / grid.cell() as f64;
    for c0 in (0..grid.c).step_by(BLOCK) {
        let channels = BLOCK.min(grid.c - c0);
        let (mut means, mut vars) = ([0.0; BLOCK], [1.0; BLOCK]);
        match &mut source {
            Source::Running { mean, var } => {
                for i in 0..channels {
                    (means[i], vars[i]) = (mean[c0 + i].to_f64(), var[c0 + i].to_f64());
                }
            }
            Source::Batch(moving) => {
                let block = c0..c0 + channels;
                [means] = block_sums(grid, block.clone(), [x, x], |_, x, _| [x], |_, x, _| [x]);
                for mean in &mut means {
                    *mean *= inverse;
                }
                let four = |i: usize, x, _| {
                    let d = x - E::Four::splat(means[i]);
                    [d * d]
                };
                let one = |i: usize, x: f64, _| [(x - means[i]) * (x - means[i])];
                [vars] = block_sums(grid, block, [x, x], four, one);
                for var in &mut vars {
                    *var *= inverse;
                }
                if let Some(Moving { mean, var, factor, unbiased }) = moving {
                    move_towards(&mut mean[c0..][..channels], &means, *factor, 1.0);
                    move_towards(&mut var[c0..][..channels], &vars, *factor, *unbiased);
                }
            }
        }
        // Loops and not `map`: a closure that is not inlined has the baseline's code.
        let mut rstds = [0.0; BLOCK];
        for (rstd, var) in rstds.iter_mut().zip(vars) {
            *rstd = inverse_std(var, eps);
        }
        if let Some(kept) = &mut kept {
            kept[c0..][..channels].copy_from_slice(&means[..channels]);
            kept[grid.c + c0..][..channels].copy_from_slice(&rstds[..channels]);
        }
        let (weights, biases) = (widened(weight, c0, channels, 1.0), widened(bias, c0, channels, 0.0));
        let mut coefficients = [[E::Acc::default(); BLOCK]; 4];
        for i in 0..BLOCK {
            let (high, low) = E::Acc::split(means[i]);
            coefficients[0][i] = high;
            coefficients[1][i] = E::Acc::from_f64(low);
            coefficients[2][i] = E::Acc::from_f64(scale * weights[i] * rstds[i]);
            coefficients[3][i] = E::Acc::from_f64(scale * biases[i]);
        }
        let [highs, lows, gains, shifts] = coefficients;
        for i in 0..channels {
            let (high, low, gain, shift) = (highs[i], lows[i], gains[i], shifts[i]);
            for row in rows(grid, c0 + i) {
                let x = &x[row.clone()];
                write_row(x, x, &mut y[row], |x, _| E::store(((x.load() - high) - low) * gain + shift));
            }
        }
    }
}

/// A block's values of a small tensor; `absent` without one.
#[inline(always)]
fn widened<A: Real>(small: Option<&[A]>, c0: usize, channels: usize, absent: f64) -> [f64; BLOCK] {
    let mut all = [absent; BLOCK];
    if let Some(small) = small {
        for (wide, value) in all.iter_mut().zip(&small[c0..][..channels]) {
            *wide = value.to_f64();
        }
    }
    all
}

#[inline(always)]
fn move_towards<A: Real>(running: &mut [A], batch: &[f64], factor: f64, correction: f64) {
    for (running, batch) in running.iter_mut().zip(batch) {
        *running = A::from_f64((1.0 - factor) * running.to_f64() + factor * (batch * correction));
    }
}

pub fn forward<E: InFours>(call: &NormForward<'_, HostMemory>) -> Result<NormOutput<HostMemory>> {
    let (spec, grid) = (call.spec, call.grid);
    // Everything that can fail comes before the running statistics move.
    let mut y = HostMemory::take(grid.len() * size_of::<E>())?;
    let mut kept = call.record.then(|| HostMemory::take(kept_bytes::<E>(grid.c))).transpose()?;
    let scale_copy = if call.record { call.scale.map(copy_of).transpose()? } else { None };
    let x = call.x.memory.read()?;
    let (weight, bias, scale) = (read(call.weight)?, read(call.bias)?, read(call.scale)?);
    let weight = values::<E::Acc>(&weight, call.weight);
    let bias = values::<E::Acc>(&bias, call.bias);
    let scale = values::<E::Acc>(&scale, call.scale).map_or(1.0, |scale| scale[0].to_f64());

    let (running_mean, running_var);
    let (mut moving_mean, mut moving_var, mut counters);
    let source = match &call.statistics {
        Statistics::Running { mean, var } => {
            (running_mean, running_var) = (mean.memory.read()?, var.memory.read()?);
            Source::Running {
                mean: running_mean.slice(mean.offset, grid.c),
                var: running_var.slice(var.offset, grid.c),
            }
        }
        Statistics::Batch(None) => Source::Batch(None),
        Statistics::Batch(Some(update)) => {
            (moving_mean, moving_var) = (update.mean.memory.write()?, update.var.memory.write()?);
            counters = update.counters.memory.write()?;
            let counter = &mut counters.slice::<i64>(update.counters.offset, 1)[0];
            let values = grid.cell() as f64;
            let factor = update.momentum.unwrap_or(1.0 / (*counter as f64 + 1.0));
            *counter += 1;
            Source::Batch(Some(Moving {
                mean: moving_mean.slice(update.mean.offset, grid.c),
                var: moving_var.slice(update.var.offset, grid.c),
                factor,
                unbiased: values / (values - 1.0),
            }))
        }
    };
    sweep_forward(ForwardPass {
        grid,
        eps: spec.eps,
        x: x.slice::<E>(call.x.offset, grid.len()),
        y: &mut y.as_mut_slice::<E>()[..grid.len()],
        weight,
        bias,
        scale,
        source,
        kept: kept.as_mut().map(|kept| &mut kept.as_mut_slice::<f64>()[..2 * grid.c]),
    });
    let saved = kept.map(|mut kept| {
        let small = &mut kept.as_mut_slice::<E::Acc>()[kept_values::<E>(grid.c)..];
        for (copy, values) in small.chunks_exact_mut(grid.c).zip([weight, bias]) {
            if let Some(values) = values {
                copy.copy_from_slice(values);
            }
        }
        let memory = Arc::new(kept);
        let view = |row: usize, of: &CpuTensor| CpuTensor {
            memory: Arc::clone(&memory),
            offset: kept_values::<E>(grid.c) + row * grid.c,
            shape: of.shape.clone(),
            dtype: of.dtype,
        };
        NormSaved {
            spec: spec.clone(),
            grid,
            x: call.x.clone(),
            batch_statistics: matches!(call.statistics, Statistics::Batch(_)),
            weight: call.weight.map(|weight| view(0, weight)),
            bias: call.bias.map(|bias| view(1, bias)),
            scale: scale_copy,
            statistics: CpuTensor { memory, offset: 0, shape: vec![2, 1, grid.c], dtype: DType::F64 },
        }
    });
    Ok(NormOutput { y: CpuTensor::new(y, &call.x.shape, E::DTYPE), saved })
}

/// Of the one block that holds what is saved: statistics `[2, C]` in float64, then weight and bias `[C]`.
fn kept_bytes<E: Element>(channels: usize) -> usize {
    2 * channels * (size_of::<f64>() + size_of::<E::Acc>())
}

/// Where weight and bias start in it, counted in their own type.
fn kept_values<E: Element>(channels: usize) -> usize {
    2 * channels * size_of::<f64>() / size_of::<E::Acc>()
}

fn read(tensor: Option<&CpuTensor>) -> Result<Option<Reading<'_>>> {
    tensor.map(|tensor| tensor.memory.read()).transpose()
}

fn values<'a, A: Real>(memory: &'a Option<Reading<'_>>, tensor: Option<&CpuTensor>) -> Option<&'a [A]> {
    memory.as_ref().zip(tensor).map(|(memory, tensor)| memory.slice(tensor.offset, tensor.len()))
}

struct BackwardPass<'a, E: Element> {
    grid: Grid,
    x: &'a [E],
    dy: &'a [E],
    dx: &'a mut [E],
    mean: &'a [f64],
    rstd: &'a [f64],
    weight: Option<&'a [E::Acc]>,
    bias: Option<&'a [E::Acc]>,
    scale: f64,
    batch_statistics: bool,
    weight_grad: &'a mut [E::Acc],
    bias_grad: &'a mut [E::Acc],
}

vectorized! {
    /// Returns the gradient of the time scale.
    fn sweep_backward<'a, E: InFours>(pass: BackwardPass<'a, E>) -> f64 {
        let grid = pass.grid;
        match (grid.n, grid.s) {
            (1, 16) => backward_blocks(pass, Grid { n: 1, s: 16, ..grid }),
            (1, 64) => backward_blocks(pass, Grid { n: 1, s: 64, ..grid }),
            _ => backward_blocks(pass, grid),
        }
    }
}

#[inline(always)]
fn backward_blocks<E: InFours>(pass: BackwardPass<'_, E>, grid: Grid) -> f64 {
    let BackwardPass { x, dy, dx, scale, weight_grad, bias_grad, .. } = pass;
    let inverse = if pass.batch_statistics { 1.0 / grid.cell() as f64 } else { 0.0 };
    let mut scale_grad = 0.0;
    for c0 in (0..grid.c).step_by(BLOCK) {
        let channels = BLOCK.min(grid.c - c0);
        let (mut means, mut rstds) = ([0.0; BLOCK], [1.0; BLOCK]);
        means[..channels].copy_from_slice(&pass.mean[c0..][..channels]);
        rstds[..channels].copy_from_slice(&pass.rstd[c0..][..channels]);
        // Σ dy and Σ dy·(x − mean).
        let four = |i: usize, x, g| [g, g * (x - E::Four::splat(means[i]))];
        let one = |i: usize, x: f64, g: f64| [g, g * (x - means[i])];
        let [s1, mut s2] = block_sums(grid, c0..c0 + channels, [x, dy], four, one);
        for (s2, rstd) in s2.iter_mut().zip(rstds) {
            *s2 *= rstd;
        }
        // Empty where there is no such parameter.
        for (grad, s2) in weight_grad.iter_mut().skip(c0).zip(&s2[..channels]) {
            *grad = E::Acc::from_f64(scale * s2);
        }
        for (grad, s1) in bias_grad.iter_mut().skip(c0).zip(&s1[..channels]) {
            *grad = E::Acc::from_f64(scale * s1);
        }
        let weights = widened(pass.weight, c0, channels, 1.0);
        let biases = widened(pass.bias, c0, channels, 0.0);
        for i in 0..channels {
            scale_grad += weights[i] * s2[i] + biases[i] * s1[i];
        }

        let mut coefficients = [[E::Acc::default(); BLOCK]; 5];
        let k = |i: usize| DxCoefficients { k1: 0.0, k2: scale * weights[i] * inverse * s2[i] };
        let mut is_scaled = false;
        for i in 0..BLOCK {
            is_scaled |= k(i).is_out_of_range(rstds[i]);
        }
        let mut scaled = rstds;
        if is_scaled {
            for i in 0..BLOCK {
                scaled[i] = rstds[i] / k(i).scale(rstds[i]);
            }
        }
        for i in 0..BLOCK {
            let gain = scale * weights[i] * scaled[i];
            let (high, low) = E::Acc::split(means[i]);
            coefficients[0][i] = high;
            coefficients[1][i] = E::Acc::from_f64(low);
            coefficients[2][i] = E::Acc::from_f64(gain);
            coefficients[3][i] = E::Acc::from_f64(gain * inverse * s1[i]);
            coefficients[4][i] = E::Acc::from_f64(gain * inverse * s2[i] * rstds[i]);
        }
        let [highs, lows, gains, firsts, seconds] = coefficients;
        for i in 0..channels {
            let (high, low, g, c1, c2) = (highs[i], lows[i], gains[i], firsts[i], seconds[i]);
            for row in rows(grid, c0 + i) {
                let dy = &dy[row.clone()];
                if pass.batch_statistics {
                    write_row(&x[row.clone()], dy, &mut dx[row.clone()], |x, dy| {
                        E::store(dy.load() * g - c1 - ((x.load() - high) - low) * c2)
                    });
                } else {
                    // Running statistics do not depend on x.
                    write_row(dy, dy, &mut dx[row.clone()], |dy, _| E::store(dy.load() * g));
                }
                if is_scaled {
                    scale_back(&mut dx[row], k(i).scale(rstds[i]));
                }
            }
        }
    }
    scale_grad
}

#[cold]
#[inline(never)]
fn scale_back<E: Element>(dx: &mut [E], scale: f64) {
    let scale = E::Acc::from_f64(scale);
    dx.iter_mut().for_each(|dx| *dx = E::store(dx.load() * scale));
}

pub fn backward<E: InFours>(saved: &NormSaved<HostMemory>, dy: &CpuTensor) -> Result<NormGrads<HostMemory>> {
    let grid = saved.grid;
    let (weight, bias, scale) = (saved.weight.as_ref(), saved.bias.as_ref(), saved.scale.as_ref());
    let mut dx = HostMemory::take(grid.len() * size_of::<E>())?;
    let small = |tensor: Option<&CpuTensor>| {
        tensor.map(|tensor| HostMemory::take(tensor.len() * size_of::<E::Acc>())).transpose()
    };
    let (mut weight_grad, mut bias_grad, mut scale_grad) = (small(weight)?, small(bias)?, small(scale)?);

    let (x, dy_memory) = (saved.x.memory.read()?, dy.memory.read()?);
    let statistics = saved.statistics.memory.read()?;
    let (mean, rstd) = statistics.slice::<f64>(saved.statistics.offset, 2 * grid.c).split_at(grid.c);
    let (weight_memory, bias_memory, scale_memory) = (read(weight)?, read(bias)?, read(scale)?);
    fn all_of<A: Real>(memory: &mut Option<HostMemory>, channels: usize) -> &mut [A] {
        memory.as_mut().map_or(&mut [], |memory| &mut memory.as_mut_slice()[..channels])
    }
    let scale_value = sweep_backward(BackwardPass {
        grid,
        x: x.slice::<E>(saved.x.offset, grid.len()),
        dy: dy_memory.slice::<E>(dy.offset, grid.len()),
        dx: &mut dx.as_mut_slice::<E>()[..grid.len()],
        mean,
        rstd,
        weight: values(&weight_memory, weight),
        bias: values(&bias_memory, bias),
        scale: values::<E::Acc>(&scale_memory, scale).map_or(1.0, |scale| scale[0].to_f64()),
        batch_statistics: saved.batch_statistics,
        weight_grad: all_of(&mut weight_grad, grid.c),
        bias_grad: all_of(&mut bias_grad, grid.c),
    });
    if let Some(grad) = &mut scale_grad {
        grad.as_mut_slice::<E::Acc>()[0] = E::Acc::from_f64(scale_value);
    }
    let dtype = <E::Acc as Element>::DTYPE;
    let row = |grad: Option<HostMemory>| grad.map(|grad| CpuTensor::new(grad, &[1, grid.c], dtype));
    Ok(NormGrads {
        dx: CpuTensor::new(dx, &dy.shape, E::DTYPE),
        weight: row(weight_grad),
        bias: row(bias_grad),
        scale: scale_grad.map(|grad| CpuTensor::new(grad, &[1], dtype)),
    })
}

#[cfg(test)]
mod tests;
