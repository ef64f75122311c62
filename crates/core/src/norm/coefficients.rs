//! The formulas of the layer family on `[rows, C]` numbers, in float64: what happens between the
//! sweep that sums and the sweep that writes. Backends do the sweeps; this is the arithmetic between.

use std::ops::Range;

use bytemuck::Zeroable;

use super::{ChannelMoments, NormSpec, Rows};
use crate::{Grid, Result, workspace};

/// 1/√(v + eps). Without eps a constant channel has 0: x̂ is 0 there, as it is with any eps above 0, and so is dx.
#[inline(always)]
pub fn inverse_std(var: f64, eps: f64) -> f64 {
    let padded = var + eps;
    if padded == 0.0 { 0.0 } else { 1.0 / padded.sqrt() }
}

/// Statistics a forward applies, `[rows * C]` each.
pub struct RowStatistics {
    pub mean: Vec<f64>,
    /// What the means leave out; empty where they have one part.
    pub low: Vec<f64>,
    /// Biased variance.
    pub var: Vec<f64>,
}

impl RowStatistics {
    /// From the moments of the cells of each step.
    pub fn from_cells(spec: &NormSpec, mut cells: Vec<ChannelMoments>) -> Result<Self> {
        if spec.statistics == Rows::Shared
            && let [first, rest @ ..] = &mut cells[..]
        {
            rest.iter().for_each(|cell| first.merge(cell));
            cells.truncate(1);
        }
        if let [row] = &mut cells[..] {
            let ChannelMoments { count, mean, low, m2: mut var } = std::mem::take(row);
            var.iter_mut().for_each(|m2| *m2 /= count);
            return Ok(Self { mean, low, var });
        }
        let room =
            |part: fn(&ChannelMoments) -> usize| workspace::with_capacity(cells.iter().map(part).sum());
        let (mut mean, mut var) = (room(|row| row.mean.len())?, room(|row| row.m2.len())?);
        let mut low = room(|row| row.low.len())?;
        for row in &cells {
            mean.extend_from_slice(&row.mean);
            low.extend_from_slice(&row.low);
            var.extend(row.m2.iter().map(|m2| m2 / row.count));
        }
        Ok(Self { mean, low, var })
    }
}

/// Weight, bias and time scale of a call with their absent values filled in.
pub struct Affine<'a> {
    pub spec: &'a NormSpec,
    pub weight: Option<&'a [f64]>,
    pub bias: Option<&'a [f64]>,
    pub scale: Option<&'a [f64]>,
}

impl Affine<'_> {
    #[inline(always)]
    pub fn weight(&self, t: usize, c: usize) -> f64 {
        self.weight.map_or(1.0, |w| w[self.spec.weight.of(t) * self.spec.channels + c])
    }

    #[inline(always)]
    pub fn bias(&self, t: usize, c: usize) -> f64 {
        self.bias.map_or(0.0, |b| b[self.spec.bias.of(t) * self.spec.channels + c])
    }

    /// The weights of `channels` at step `t`; `None` stands for ones.
    #[inline(always)]
    pub fn weights(&self, t: usize, channels: Range<usize>) -> Option<&[f64]> {
        self.weight.map(|w| &w[self.spec.weight.of(t) * self.spec.channels..][channels])
    }

    /// The biases of `channels` at step `t`; `None` stands for zeros.
    #[inline(always)]
    pub fn biases(&self, t: usize, channels: Range<usize>) -> Option<&[f64]> {
        self.bias.map(|b| &b[self.spec.bias.of(t) * self.spec.channels..][channels])
    }

    #[inline(always)]
    pub fn scale(&self, t: usize) -> f64 {
        self.scale.map_or(1.0, |p| p[t])
    }
}

/// S1 = Σ dy and S2 = Σ dy·x̂ of one cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Zeroable)]
pub struct CellSums {
    pub s1: f64,
    pub s2: f64,
}

/// Per statistics row and channel: `dx = i·p·w·dy − i·k1 − x̂·i·k2`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Zeroable)]
pub struct DxCoefficients {
    pub k1: f64,
    pub k2: f64,
}

impl DxCoefficients {
    /// Whether i²·k2 could leave the range of float32, so that [`Self::scale`] has to be taken out of dx.
    #[inline(always)]
    pub fn is_out_of_range(&self, rstd: f64) -> bool {
        (rstd * rstd * self.k2).abs() > LARGEST_SLOPE || rstd < LEAST_RSTD
    }

    /// A power of two near i where [`Self::is_out_of_range`], else 1.
    pub fn scale(&self, rstd: f64) -> f64 {
        let power = f64::from_bits(rstd.to_bits() & f64::INFINITY.to_bits());
        if self.is_out_of_range(rstd) && power.is_normal() { power } else { 1.0 }
    }
}

/// Float32 ends at 2^128.
const LARGEST_SLOPE: f64 = (1u128 << 120) as f64;
/// Its square is well above 2^-126, where float32 begins to lose digits.
const LEAST_RSTD: f64 = 1.0 / (1u64 << 50) as f64;

/// k1 and k2 of channel `c`, one pair per statistics row of `steps`, written to `out`. `sums(t)` are the cell's.
pub fn dx_coefficients(
    affine: &Affine<'_>,
    grid: Grid,
    steps: Range<usize>,
    c: usize,
    batch_statistics: bool,
    sums: impl Fn(usize) -> CellSums,
    out: &mut [DxCoefficients],
) {
    out.fill(DxCoefficients::default());
    if !batch_statistics {
        return;
    }
    let inverse = 1.0 / affine.spec.values_per_row(grid) as f64;
    let statistics = affine.spec.statistics;
    for t in steps.clone() {
        let gain = affine.scale(t) * affine.weight(t, c) * inverse;
        let cell = sums(t);
        let row = &mut out[statistics.of(t) - statistics.of(steps.start)];
        row.k1 += gain * cell.s1;
        row.k2 += gain * cell.s2;
    }
}

/// Parameter gradients from all cell sums `[t * C + c]`, in a fixed order. Absent ones are empty.
pub struct ParameterGrads {
    pub weight: Vec<f64>,
    pub bias: Vec<f64>,
    pub scale: Vec<f64>,
}

impl ParameterGrads {
    pub fn of(affine: &Affine<'_>, grid: Grid, cells: &[CellSums]) -> Result<Self> {
        let spec = affine.spec;
        let present = |rows: Rows, given: bool| if given { rows.count(grid.t) * grid.c } else { 0 };
        let mut weight = workspace::zeros(present(spec.weight, affine.weight.is_some()))?;
        let mut bias = workspace::zeros(present(spec.bias, affine.bias.is_some()))?;
        let mut scale = workspace::zeros(if affine.scale.is_some() { grid.t } else { 0 })?;
        for t in 0..grid.t {
            let p = affine.scale(t);
            for c in 0..grid.c {
                let CellSums { s1, s2 } = cells[t * grid.c + c];
                if let Some(w) = weight.get_mut(spec.weight.of(t) * grid.c + c) {
                    *w += p * s2;
                }
                if let Some(b) = bias.get_mut(spec.bias.of(t) * grid.c + c) {
                    *b += p * s1;
                }
                if let Some(total) = scale.get_mut(t) {
                    *total += affine.weight(t, c) * s2 + affine.bias(t, c) * s1;
                }
            }
        }
        Ok(Self { weight, bias, scale })
    }
}
