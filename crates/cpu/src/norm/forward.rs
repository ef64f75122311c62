//! Forward: moments per tile, statistics per row, then `y = (x − mean)·a + b` per tile. In a
//! channels plan both sweeps are one task and memory is read once.

use std::ops::Range;

use spikenorm_core::norm::{
    Affine, ChannelMoments, CpuPlan, NormForward, NormOutput, NormSpec, RowStatistics, Statistics,
};
use spikenorm_core::{Grid, Result, workspace};

use super::small::{Normalizer, save, split, update_running};
use super::tile::{Tile, by_channels, cut, tiles};
use super::{kernels_long, kernels_short};
use crate::HostMemory;
use crate::backend::CpuTensor;
use crate::element::{Element, Real};
use crate::parallel::for_each;
use crate::simd::vectorized;
use crate::stream::{STREAMING_BYTES, fence};
use crate::tensor_ops::read_f64;

pub fn forward<E: Element>(call: &NormForward<'_, HostMemory>) -> Result<NormOutput<HostMemory>> {
    let plan = match call.statistics {
        Statistics::Batch(_) => CpuPlan::new(call.grid, call.spec.statistics, size_of::<E>(), 1),
        // Nothing is summed: any cut will do, and whole samples are contiguous.
        Statistics::Running { .. } => CpuPlan::blocks(call.grid, size_of::<E>()),
    };
    forward_planned::<E>(call, plan)
}

pub(super) fn forward_planned<E: Element>(
    call: &NormForward<'_, HostMemory>,
    plan: CpuPlan,
) -> Result<NormOutput<HostMemory>> {
    let (spec, grid) = (call.spec, call.grid);
    let read = |tensor: Option<&CpuTensor>| tensor.map(read_f64).transpose();
    let (weight, bias, scale) = (read(call.weight)?, read(call.bias)?, read(call.scale)?);
    let affine = Affine { spec, weight: weight.as_deref(), bias: bias.as_deref(), scale: scale.as_deref() };

    let mut out = HostMemory::take(grid.len() * size_of::<E>())?;
    let x = call.x.memory.read()?;
    let x = x.slice::<E>(call.x.offset, grid.len());
    let y = &mut out.as_mut_slice::<E>()[..grid.len()];
    let bytes = 2 * size_of_val(x);

    let (whole, tiles) = (Tile::whole(grid), tiles(grid, plan)?);
    let statistics = match (&call.statistics, plan) {
        (Statistics::Running { mean, var }, _) => {
            let statistics = RowStatistics { mean: read_f64(mean)?, low: Vec::new(), var: read_f64(var)? };
            let normalizer = Normalizer::new(spec, &statistics)?;
            write_parts(&whole, &tiles, x, cut(y, &tiles)?, bytes, &normalizer, &affine)?;
            statistics
        }
        (Statistics::Batch(_), CpuPlan::Channels { .. }) => one_sweep(&tiles, x, y, bytes, &affine, grid)?,
        (Statistics::Batch(_), CpuPlan::Together { .. }) => together(&tiles, x, y, bytes, &affine, grid)?,
        (Statistics::Batch(_), CpuPlan::Blocks { .. }) => {
            two_sweeps(&whole, &tiles, x, cut(y, &tiles)?, bytes, &affine)?
        }
    };

    let y = CpuTensor::new(out, &call.x.shape, E::DTYPE);
    let saved = call.record.then(|| save(call, &statistics)).transpose()?;
    if let Statistics::Batch(Some(update)) = &call.statistics {
        update_running(update, spec, grid, &statistics)?;
    }
    Ok(NormOutput { y, saved })
}

/// Each task owns its channels: it sums, then writes what it has just read.
fn one_sweep<E: Element>(
    tiles: &[Tile],
    x: &[E],
    y: &mut [E],
    bytes: usize,
    affine: &Affine<'_>,
    grid: Grid,
) -> Result<RowStatistics> {
    let tasks = workspace::collect(tiles.iter().zip(cut(y, tiles)?))?;
    let parts = for_each(bytes, tasks, |(tile, slabs)| sweep_tile(tile, x, slabs, affine))?;
    let mut all = no_statistics::<E>(affine.spec, grid)?;
    for (tile, part) in tiles.iter().zip(parts) {
        place(&mut all, &part, affine.spec, tile);
    }
    Ok(all)
}

/// All threads sum one tile's parts, then write them, then go on to the next tile.
fn together<E: Element>(
    tiles: &[Tile],
    x: &[E],
    y: &mut [E],
    bytes: usize,
    affine: &Affine<'_>,
    grid: Grid,
) -> Result<RowStatistics> {
    let mut all = no_statistics::<E>(affine.spec, grid)?;
    let mut slabs = cut(y, tiles)?.into_iter();
    for (whole, parts) in by_channels(tiles) {
        let slabs = workspace::collect(slabs.by_ref().take(parts.len()))?;
        let statistics = two_sweeps(&whole, parts, x, slabs, bytes / tiles.len() * parts.len(), affine)?;
        place(&mut all, &statistics, affine.spec, &whole);
    }
    Ok(all)
}

fn no_statistics<E: Element>(spec: &NormSpec, grid: Grid) -> Result<RowStatistics> {
    let values = spec.statistics.count(grid.t) * grid.c;
    let zeros = |values| workspace::zeros(values);
    let low = zeros(if E::Acc::IS_WIDEST { values } else { 0 })?;
    Ok(RowStatistics { mean: zeros(values)?, low, var: zeros(values)? })
}

/// Puts the statistics of a tile's channels among all.
fn place(all: &mut RowStatistics, part: &RowStatistics, spec: &NormSpec, tile: &Tile) {
    for row in 0..spec.statistics.count(tile.t) {
        let from = row * tile.c;
        let to = (spec.statistics.of(tile.t0) + row) * tile.grid.c + tile.c0;
        all.mean[to..to + tile.c].copy_from_slice(&part.mean[from..from + tile.c]);
        if !all.low.is_empty() {
            all.low[to..to + tile.c].copy_from_slice(&part.low[from..from + tile.c]);
        }
        all.var[to..to + tile.c].copy_from_slice(&part.var[from..from + tile.c]);
    }
}

/// Sums all parts of a tile, merges in their order, then writes all of them.
fn two_sweeps<E: Element>(
    whole: &Tile,
    parts: &[Tile],
    x: &[E],
    slabs: Vec<Vec<&mut [E]>>,
    bytes: usize,
    affine: &Affine<'_>,
) -> Result<RowStatistics> {
    let sums = for_each(bytes, workspace::collect(parts)?, |part| sum_tile(part, x))?;
    let mut cells =
        workspace::try_collect((0..whole.t).map(|_| ChannelMoments::none(whole.c, E::Acc::IS_WIDEST)))?;
    for (part, sums) in parts.iter().zip(&sums) {
        for (cells, sums) in cells[part.t0 - whole.t0..].iter_mut().zip(sums) {
            cells.merge(sums);
        }
    }
    let statistics = RowStatistics::from_cells(affine.spec, cells)?;
    write_parts(whole, parts, x, slabs, bytes, &Normalizer::new(affine.spec, &statistics)?, affine)?;
    Ok(statistics)
}

/// `normalizer`: of the whole.
fn write_parts<E: Element>(
    whole: &Tile,
    parts: &[Tile],
    x: &[E],
    slabs: Vec<Vec<&mut [E]>>,
    bytes: usize,
    normalizer: &Normalizer<E::Acc>,
    affine: &Affine<'_>,
) -> Result<()> {
    let tasks = workspace::collect(parts.iter().zip(slabs))?;
    for_each(bytes, tasks, |(part, slabs)| write_tile(part, x, slabs, normalizer, whole, affine))?;
    Ok(())
}

/// Both sweeps over a tile, which is still in cache for the second.
fn sweep_tile<E: Element>(
    tile: &Tile,
    x: &[E],
    slabs: Vec<&mut [E]>,
    affine: &Affine<'_>,
) -> Result<RowStatistics> {
    let statistics = RowStatistics::from_cells(affine.spec, sum_tile(tile, x)?)?;
    write_tile(tile, x, slabs, &Normalizer::new(affine.spec, &statistics)?, tile, affine)?;
    Ok(statistics)
}

vectorized! {
    /// The first sweep.
    fn sum_tile<'a, E: Element>(tile: &'a Tile, x: &'a [E]) -> Result<Vec<ChannelMoments>> {
        cell_moments(tile, x)
    }
}

vectorized! {
    /// The second sweep. `part`: the tile that the normalizer is of.
    fn write_tile<'a, E: Element>(
        tile: &'a Tile,
        x: &'a [E],
        slabs: Vec<&'a mut [E]>,
        normalizer: &'a Normalizer<E::Acc>,
        part: &'a Tile,
        affine: &'a Affine<'a>,
    ) -> Result<()> {
        apply(tile, x, slabs, normalizer, part, affine)
    }
}

/// Moments of every cell of the tile, by step.
#[inline(always)]
fn cell_moments<E: Element>(tile: &Tile, x: &[E]) -> Result<Vec<ChannelMoments>> {
    let mut cells = workspace::with_capacity(tile.t)?;
    for t in 0..tile.t {
        cells.push(if tile.is_long() {
            kernels_long::moments(tile, x, t)?
        } else {
            kernels_short::moments(tile, x, t)?
        });
    }
    Ok(cells)
}

/// Writes a tile. `part`: the tile that the normalizer is of.
#[inline(always)]
fn apply<E: Element>(
    tile: &Tile,
    x: &[E],
    mut slabs: Vec<&mut [E]>,
    normalizer: &Normalizer<E::Acc>,
    part: &Tile,
    affine: &Affine<'_>,
) -> Result<()> {
    if slabs.is_empty() {
        return Ok(());
    }
    let spec: &NormSpec = affine.spec;
    let s = tile.grid.s;
    let streaming = tile.grid.len() * size_of::<E>() >= STREAMING_BYTES;
    // Of a step's channels, and repeated over their columns.
    let mut room = workspace::zeros(3 * tile.c)?;
    let mut channels: [&mut [E::Acc]; 3] = split(&mut room);
    let mut columns = workspace::zeros(if tile.is_long() { 0 } else { 3 * tile.c * s })?;
    for t in (0..tile.t).rev() {
        let step = tile.t0 + t;
        let row = part.index(spec.statistics, step, tile.c0);
        coefficients(normalizer, row..row + tile.c, affine, step, tile.c0, &mut channels);
        if tile.is_long() {
            let [high, a, b] = &channels;
            for n in tile.again() {
                let rows = tile.slab(x, t, n).chunks_exact(s).zip(slabs[t * tile.n + n].chunks_exact_mut(s));
                for (c, (x, y)) in rows.enumerate() {
                    kernels_long::apply(x, y, [high[c], a[c], b[c]], streaming);
                }
            }
        } else {
            let spread = kernels_short::spread_all(&channels, s, &mut columns);
            for n in tile.again() {
                kernels_short::apply(tile.slab(x, t, n), &mut *slabs[t * tile.n + n], spread, streaming);
            }
        }
    }
    fence(streaming);
    Ok(())
}

/// What `y = (x − high)·a + b` takes for each of the channels from `c0` on, at one step. `rows`: theirs in the normalizer.
#[inline(always)]
fn coefficients<A: Real>(
    normalizer: &Normalizer<A>,
    rows: Range<usize>,
    affine: &Affine<'_>,
    step: usize,
    c0: usize,
    out: &mut [&mut [A]; 3],
) {
    let channels = c0..c0 + rows.len();
    let (p, weights) = (affine.scale(step), affine.weights(step, channels.clone()));
    let biases = affine.biases(step, channels);
    let (rstd, low) = (&normalizer.rstd[rows.clone()], &normalizer.low[rows.clone()]);
    let [high, a, b] = out;
    high.copy_from_slice(&normalizer.high[rows]);
    for c in 0..rstd.len() {
        let gain = p * weights.map_or(1.0, |w| w[c]) * rstd[c];
        a[c] = A::from_f64(gain);
        // What the rounded mean leaves out is the bias's: a constant.
        b[c] = A::from_f64(p * biases.map_or(0.0, |b| b[c]) - low[c] * gain);
    }
}
