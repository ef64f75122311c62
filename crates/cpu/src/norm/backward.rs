//! Backward: S1 = Σ dy and S2 = Σ dy·x̂ per tile, k1 and k2 per row, then
//! `dx = i·p·w·dy − i·k1 − x̂·i·k2` per tile, in one sweep or two as in forward.

use spikenorm_core::norm::{
    Affine, CellSums, CpuPlan, DxCoefficients, NormGrads, NormSaved, ParameterGrads, dx_coefficients,
};
use spikenorm_core::{Grid, Result, workspace};

use super::small::{Normalizer, from_f64, split};
use super::tile::{Tile, by_channels, cut, tiles};
use super::{kernels_long, kernels_short, sums};
use crate::HostMemory;
use crate::backend::CpuTensor;
use crate::element::{Element, Real};
use crate::parallel::for_each;
use crate::simd::vectorized;
use crate::stream::{STREAMING_BYTES, fence};
use crate::tensor_ops::read_f64;

/// What every task of one backward reads.
struct Pass<'a, E: Element> {
    grid: Grid,
    x: &'a [E],
    dy: &'a [E],
    means: Vec<f64>,
    normalizer: Normalizer<E::Acc>,
    affine: Affine<'a>,
    batch_statistics: bool,
}

pub fn backward<E: Element>(saved: &NormSaved<HostMemory>, dy: &CpuTensor) -> Result<NormGrads<HostMemory>> {
    backward_planned::<E>(saved, dy, CpuPlan::new(saved.grid, saved.spec.statistics, size_of::<E>(), 2))
}

pub(super) fn backward_planned<E: Element>(
    saved: &NormSaved<HostMemory>,
    dy: &CpuTensor,
    plan: CpuPlan,
) -> Result<NormGrads<HostMemory>> {
    let grid = saved.grid;
    let spec = &saved.spec;
    let read = |tensor: &Option<CpuTensor>| tensor.as_ref().map(read_f64).transpose();
    let (weight, bias, scale) = (read(&saved.weight)?, read(&saved.bias)?, read(&saved.scale)?);

    let mut out = HostMemory::take(grid.len() * size_of::<E>())?;
    let x = saved.x.memory.read()?;
    let dy_memory = dy.memory.read()?;
    let (means, normalizer) = Normalizer::from_saved(saved)?;
    let pass = Pass {
        grid,
        x: x.slice::<E>(saved.x.offset, grid.len()),
        dy: dy_memory.slice::<E>(dy.offset, grid.len()),
        means,
        normalizer,
        affine: Affine { spec, weight: weight.as_deref(), bias: bias.as_deref(), scale: scale.as_deref() },
        batch_statistics: saved.batch_statistics,
    };
    let dx = &mut out.as_mut_slice::<E>()[..grid.len()];
    let tiles = tiles(grid, plan)?;
    let cells = match plan {
        CpuPlan::Channels { .. } => pass.one_sweep(&tiles, dx)?,
        CpuPlan::Together { .. } => pass.together(&tiles, dx)?,
        CpuPlan::Blocks { .. } => {
            let mut all = pass.no_sums()?;
            pass.two_sweeps(&Tile::whole(grid), &tiles, cut(dx, &tiles)?, pass.bytes(), &mut all)?;
            all
        }
    };

    let grads = ParameterGrads::of(&pass.affine, grid, &cells)?;
    let dtype = <E::Acc as Element>::DTYPE;
    let small = |values: &[f64], channels: usize| -> Result<Option<CpuTensor>> {
        if values.is_empty() {
            return Ok(None);
        }
        from_f64(values, &[values.len() / channels, channels], dtype).map(Some)
    };
    Ok(NormGrads {
        weight: small(&grads.weight, grid.c)?,
        bias: small(&grads.bias, grid.c)?,
        scale: small(&grads.scale, 1)?.map(|scale| scale.reshape(&[grid.t])).transpose()?,
        dx: CpuTensor::new(out, &dy.shape, E::DTYPE),
    })
}

impl<E: Element> Pass<'_, E> {
    fn bytes(&self) -> usize {
        3 * size_of_val(self.x)
    }

    /// Index of step `t`, channel `c` in the statistics.
    #[inline(always)]
    fn row(&self, t: usize, c: usize) -> usize {
        self.affine.spec.statistics.of(t) * self.grid.c + c
    }

    fn one_sweep(&self, tiles: &[Tile], dx: &mut [E]) -> Result<Vec<CellSums>> {
        let tasks = workspace::collect(tiles.iter().zip(cut(dx, tiles)?))?;
        let parts = for_each(self.bytes(), tasks, |(tile, slabs)| sweep_tile(self, tile, slabs))?;
        let mut all = self.no_sums()?;
        self.add(tiles, parts, &mut all);
        Ok(all)
    }

    /// All threads sum one tile's parts, then write them, then go on to the next tile.
    fn together(&self, tiles: &[Tile], dx: &mut [E]) -> Result<Vec<CellSums>> {
        let mut all = self.no_sums()?;
        let mut slabs = cut(dx, tiles)?.into_iter();
        for (whole, parts) in by_channels(tiles) {
            let slabs = workspace::collect(slabs.by_ref().take(parts.len()))?;
            self.two_sweeps(&whole, parts, slabs, self.bytes() / tiles.len() * parts.len(), &mut all)?;
        }
        Ok(all)
    }

    /// Sums all parts of a tile, then writes all of them. `all`: the cells of the whole grid, where the sums are put.
    fn two_sweeps(
        &self,
        whole: &Tile,
        parts: &[Tile],
        slabs: Vec<Vec<&mut [E]>>,
        bytes: usize,
        all: &mut [CellSums],
    ) -> Result<()> {
        let sums = for_each(bytes, workspace::collect(parts)?, |part| sum_tile(self, part))?;
        self.add(parts, sums, all);
        let rows = self.dx_rows(whole, |t, c| all[(whole.t0 + t) * self.grid.c + whole.c0 + c])?;
        let tasks = workspace::collect(parts.iter().zip(slabs))?;
        for_each(bytes, tasks, |(part, slabs)| write_tile(self, part, slabs, &rows, whole))?;
        Ok(())
    }

    fn no_sums(&self) -> Result<Vec<CellSums>> {
        workspace::zeros(self.grid.t * self.grid.c)
    }

    /// Adds the tiles' sums up in their fixed order.
    fn add(&self, tiles: &[Tile], parts: Vec<Vec<CellSums>>, cells: &mut [CellSums]) {
        for (tile, part) in tiles.iter().zip(parts) {
            for (i, sums) in part.into_iter().enumerate() {
                let (t, c) = (tile.t0 + i / tile.c, tile.c0 + i % tile.c);
                let cell = &mut cells[t * self.grid.c + c];
                cell.s1 += sums.s1;
                cell.s2 += sums.s2;
            }
        }
    }

    /// k1 and k2 of a tile, `[row * channels + c]`. `sums(t, c)`: of its cell (t, c).
    #[inline(always)]
    fn dx_rows(&self, part: &Tile, sums: impl Fn(usize, usize) -> CellSums) -> Result<Vec<DxCoefficients>> {
        let rows = self.affine.spec.statistics.count(part.t);
        let channels = part.c;
        let mut all = workspace::zeros(rows * channels)?;
        let mut column = workspace::zeros(rows)?;
        for c in 0..channels {
            dx_coefficients(
                &self.affine,
                self.grid,
                part.t0..part.t0 + part.t,
                part.c0 + c,
                self.batch_statistics,
                |t| sums(t - part.t0, c),
                &mut column,
            );
            for (row, value) in column.iter().enumerate() {
                all[row * channels + c] = *value;
            }
        }
        Ok(all)
    }

    /// Sums of every cell of the tile, `[t * C_tile + c]`.
    #[inline(always)]
    fn cell_sums(&self, tile: &Tile) -> Result<Vec<CellSums>> {
        let mut all = workspace::with_capacity(tile.t * tile.c)?;
        for t in 0..tile.t {
            let row = self.row(tile.t0 + t, tile.c0);
            let (means, rstds) = (&self.means[row..][..tile.c], &self.normalizer.rstd[row..][..tile.c]);
            let mut sums = match E::IS_HALF {
                true => self.half_sums(tile, t, means, rstds)?,
                false => self.step_sums::<false>(tile, t, means)?,
            };
            if E::Acc::IS_WIDEST {
                let lows = &self.normalizer.low[row..][..tile.c];
                sums.iter_mut().zip(lows).for_each(|([s1, s2], low)| *s2 -= low * *s1);
            }
            all.extend(sums.iter().zip(rstds).map(|([s1, s2], rstd)| CellSums { s1: *s1, s2: s2 * rstd }));
        }
        Ok(all)
    }

    /// Σ dy and Σ dy·(x − mean) of a step's channels.
    #[inline(always)]
    fn step_sums<const EXACT: bool>(&self, tile: &Tile, t: usize, means: &[f64]) -> Result<Vec<[f64; 2]>> {
        let s = tile.grid.s;
        let mut sums = workspace::zeros(tile.c)?;
        if tile.is_long() {
            kernels_long::backward_sums::<E, EXACT>(tile, self.x, self.dy, t, means, &mut sums)?;
        } else {
            let mut columns = workspace::zeros(tile.c * s)?;
            kernels_short::spread(means.iter().copied(), s, &mut columns);
            kernels_short::backward_sums::<E, EXACT>(tile, self.x, self.dy, t, &columns, &mut sums)?;
        }
        Ok(sums)
    }

    /// The same of a half type: from exact products, Σ dy·x, but for channels whose mean is so far from 0 that little would be
    /// left of their sum without it, or where something is not finite. Each channel for itself: what one holds must not show
    /// in another.
    #[inline(always)]
    fn half_sums(&self, tile: &Tile, t: usize, means: &[f64], rstds: &[f64]) -> Result<Vec<[f64; 2]>> {
        let mut sums = self.step_sums::<true>(tile, t, &workspace::zeros(tile.c)?)?;
        let mut rest = Vec::new();
        for (c, [s1, s2]) in sums.iter_mut().enumerate() {
            *s2 -= means[c] * *s1;
            let is_near = (means[c] * rstds[c]).abs() <= sums::NEAR;
            if !(is_near && s1.is_finite() && s2.is_finite()) {
                workspace::push(&mut rest, c)?;
            }
        }
        if !rest.is_empty() {
            let careful = self.step_sums::<false>(tile, t, means)?;
            rest.into_iter().for_each(|c| sums[c] = careful[c]);
        }
        Ok(sums)
    }

    /// Writes a tile. `part`: the tile that `rows` are of.
    #[inline(always)]
    fn apply(
        &self,
        tile: &Tile,
        mut slabs: Vec<&mut [E]>,
        rows: &[DxCoefficients],
        part: &Tile,
    ) -> Result<()> {
        if slabs.is_empty() {
            return Ok(());
        }
        let s = tile.grid.s;
        let streaming = size_of_val(self.x) >= STREAMING_BYTES;
        // Of a step's channels, and repeated over their columns.
        let mut room = workspace::zeros(4 * tile.c)?;
        let mut channels: [&mut [E::Acc]; 4] = split(&mut room);
        let mut columns = workspace::zeros(if tile.is_long() { 0 } else { 4 * tile.c * s })?;
        for t in (0..tile.t).rev() {
            let step = tile.t0 + t;
            let row = part.index(self.affine.spec.statistics, step, tile.c0);
            let k = &rows[row..row + tile.c];
            let is_scaled = self.coefficients(step, tile.c0, k, &mut channels);
            if tile.is_long() {
                let [high, g, c1, c2] = &channels;
                for n in tile.again() {
                    let x = tile.slab(self.x, t, n).chunks_exact(s);
                    let dy = tile.slab(self.dy, t, n).chunks_exact(s);
                    let dx = slabs[t * tile.n + n].chunks_exact_mut(s);
                    for (c, ((x, dy), dx)) in x.zip(dy).zip(dx).enumerate() {
                        if self.batch_statistics {
                            let coefficients = [high[c], g[c], c1[c], c2[c]];
                            kernels_long::backward_apply(x, dy, dx, coefficients, streaming);
                        } else {
                            kernels_long::scale(dy, dx, g[c], streaming);
                        }
                    }
                }
            } else {
                let spread = kernels_short::spread_all(&channels, s, &mut columns);
                for n in tile.again() {
                    let (x, dy) = (tile.slab(self.x, t, n), tile.slab(self.dy, t, n));
                    let dx = &mut *slabs[t * tile.n + n];
                    if self.batch_statistics {
                        kernels_short::backward_apply(x, dy, dx, spread, streaming);
                    } else {
                        kernels_short::scale(dy, dx, spread[1], streaming);
                    }
                }
            }
            if is_scaled {
                let row = self.row(step, tile.c0);
                let rstds = &self.normalizer.rstd[row..][..tile.c];
                scale_back(&mut slabs[t * tile.n..][..tile.n], s, k, rstds);
            }
        }
        fence(streaming);
        Ok(())
    }

    /// What `dx = g·dy − c1 − (x − high)·c2` takes for each of the channels from `c0` on, at one step. `k`: theirs. Returns
    /// whether any dx has to be multiplied by its channel's [`DxCoefficients::scale`].
    #[inline(always)]
    fn coefficients(
        &self,
        step: usize,
        c0: usize,
        k: &[DxCoefficients],
        out: &mut [&mut [E::Acc]; 4],
    ) -> bool {
        let row = self.row(step, c0);
        let rows = row..row + k.len();
        let (rstd, low) = (&self.normalizer.rstd[rows.clone()], &self.normalizer.low[rows.clone()]);
        let (p, weights) = (self.affine.scale(step), self.affine.weights(step, c0..c0 + k.len()));
        let [high, g, c1, c2] = out;
        high.copy_from_slice(&self.normalizer.high[rows]);
        let mut is_scaled = false;
        for c in 0..k.len() {
            let gain = p * weights.map_or(1.0, |w| w[c]);
            [g[c], c1[c], c2[c]] = of_channel(k[c], rstd[c], rstd[c], gain, low[c]);
            is_scaled |= k[c].is_out_of_range(rstd[c]);
        }
        if is_scaled {
            for c in 0..k.len() {
                let gain = p * weights.map_or(1.0, |w| w[c]);
                let scaled = rstd[c] / k[c].scale(rstd[c]);
                [g[c], c1[c], c2[c]] = of_channel(k[c], rstd[c], scaled, gain, low[c]);
            }
        }
        is_scaled
    }
}

/// g, c1 and c2 of a channel, whose i is `rstd`, or `scaled` without its scale.
#[inline(always)]
fn of_channel<A: Real>(k: DxCoefficients, rstd: f64, scaled: f64, gain: f64, low: f64) -> [A; 3] {
    let slope = scaled * rstd * k.k2;
    // What the rounded mean leaves out is a constant.
    [scaled * gain, scaled * k.k1 - low * slope, slope].map(A::from_f64)
}

/// Multiplies what the coefficients of a step's channels gave by the scales that were taken out of them.
#[cold]
#[inline(never)]
fn scale_back<E: Element>(slabs: &mut [&mut [E]], s: usize, k: &[DxCoefficients], rstds: &[f64]) {
    for slab in slabs {
        for ((dx, k), rstd) in slab.chunks_exact_mut(s).zip(k).zip(rstds) {
            let scale = E::Acc::from_f64(k.scale(*rstd));
            dx.iter_mut().for_each(|dx| *dx = E::store(dx.load() * scale));
        }
    }
}

/// Both sweeps over a tile, which is still in cache for the second.
fn sweep_tile<E: Element>(pass: &Pass<'_, E>, tile: &Tile, slabs: Vec<&mut [E]>) -> Result<Vec<CellSums>> {
    let sums = sum_tile(pass, tile)?;
    let rows = pass.dx_rows(tile, |t, c| sums[t * tile.c + c])?;
    write_tile(pass, tile, slabs, &rows, tile)?;
    Ok(sums)
}

vectorized! {
    /// The first sweep.
    fn sum_tile<'a, E: Element>(pass: &'a Pass<'a, E>, tile: &'a Tile) -> Result<Vec<CellSums>> {
        pass.cell_sums(tile)
    }
}

vectorized! {
    /// The second sweep. `part`: the tile that `rows` are of.
    fn write_tile<'a, E: Element>(
        pass: &'a Pass<'a, E>,
        tile: &'a Tile,
        slabs: Vec<&'a mut [E]>,
        rows: &'a [DxCoefficients],
        part: &'a Tile,
    ) -> Result<()> {
        pass.apply(tile, slabs, rows, part)
    }
}
