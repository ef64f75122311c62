//! The `[rows, C]` tensors beside the grid: read as float64, written in the parameter dtype.

use spikenorm_core::norm::{NormForward, NormSaved, NormSpec, RowStatistics, Statistics, inverse_std};
use spikenorm_core::{DType, Grid, Result, workspace};

use crate::HostMemory;
use crate::backend::{Cpu, CpuTensor};
use crate::element::Real;
use crate::tensor_ops::{copy_of, read_f64, write_f64};

/// Mean, as what the type the sweep computes in holds of it and the rest, and 1/√(v + eps), `[rows * C]` each.
pub struct Normalizer<A> {
    pub high: Vec<A>,
    pub low: Vec<f64>,
    pub rstd: Vec<f64>,
}

impl<A: Real> Normalizer<A> {
    pub fn new(spec: &NormSpec, statistics: &RowStatistics) -> Result<Self> {
        Self::from_parts(&statistics.mean, &statistics.low, rstd(spec, statistics)?)
    }

    /// `low`: what the means leave out, if anything.
    fn from_parts(mean: &[f64], low: &[f64], rstd: Vec<f64>) -> Result<Self> {
        let high = workspace::collect(mean.iter().map(|&mean| A::split(mean).0))?;
        let low = match low {
            [] => workspace::collect(mean.iter().map(|&mean| A::split(mean).1)),
            low => workspace::copied(low),
        }?;
        Ok(Self { high, low, rstd })
    }

    /// With the means themselves.
    pub fn from_saved(saved: &NormSaved<HostMemory>) -> Result<(Vec<f64>, Self)> {
        let rows = |which| read_f64(&saved.statistics.rows(which, 1));
        let (mean, low) = (rows(0)?, if saved.statistics.shape[0] > 2 { rows(2)? } else { Vec::new() });
        let normalizer = Self::from_parts(&mean, &low, rows(1)?)?;
        Ok((mean, normalizer))
    }
}

fn rstd(spec: &NormSpec, statistics: &RowStatistics) -> Result<Vec<f64>> {
    workspace::collect(statistics.var.iter().map(|&var| inverse_std(var, spec.eps)))
}

/// What backward needs of a forward.
// Of no type, and so once in the binary.
#[inline(never)]
pub fn save(call: &NormForward<'_, HostMemory>, statistics: &RowStatistics) -> Result<NormSaved<HostMemory>> {
    let copy = |tensor: Option<&CpuTensor>| tensor.map(copy_of).transpose();
    Ok(NormSaved {
        spec: call.spec.clone(),
        grid: call.grid,
        x: call.x.clone(),
        statistics: saved_statistics(call.spec, statistics, call.grid.c)?,
        batch_statistics: matches!(call.statistics, Statistics::Batch(_)),
        weight: copy(call.weight)?,
        bias: copy(call.bias)?,
        scale: copy(call.scale)?,
    })
}

/// The statistics as backward reads them, in float64: mean and 1/√(v + eps), and what the mean leaves out where it has two
/// parts, `[rows, C]` each.
fn saved_statistics(spec: &NormSpec, statistics: &RowStatistics, channels: usize) -> Result<CpuTensor> {
    let (parts, values) = (if statistics.low.is_empty() { 2 } else { 3 }, statistics.mean.len());
    let tensor = Cpu.allocate(&[parts, values / channels.max(1), channels], DType::F64)?;
    write_f64(&tensor.rows(0, 1), &statistics.mean)?;
    write_f64(&tensor.rows(1, 1), &rstd(spec, statistics)?)?;
    if parts == 3 {
        write_f64(&tensor.rows(2, 1), &statistics.low)?;
    }
    Ok(tensor)
}

pub fn from_f64(values: &[f64], shape: &[usize], dtype: DType) -> Result<CpuTensor> {
    let tensor = Cpu.allocate(shape, dtype)?;
    write_f64(&tensor, values)?;
    Ok(tensor)
}

/// Moves running statistics and counters in place: `(1 − f)·running + f·batch`, variance unbiased.
// Of no type, and so once in the binary.
#[inline(never)]
pub fn update_running(
    update: &spikenorm_core::norm::RunningUpdate<'_, HostMemory>,
    spec: &NormSpec,
    grid: Grid,
    batch: &RowStatistics,
) -> Result<()> {
    // Neither changes where one of them cannot.
    for running in [update.mean, update.var] {
        drop(running.memory.write()?);
    }
    let values = spec.values_per_row(grid) as f64;
    let unbiased = values / (values - 1.0);
    let mut counters = update.counters.memory.write()?;
    let counters = counters.slice::<i64>(update.counters.offset, update.counters.len());
    let factor = |count: &i64| update.momentum.unwrap_or(1.0 / (*count as f64 + 1.0));
    let factors = workspace::collect(counters.iter().map(factor))?;
    let moved = |running: &CpuTensor, batch: &[f64], correction: f64| -> Result<Vec<f64>> {
        let mut running = read_f64(running)?;
        for (i, (r, b)) in running.iter_mut().zip(batch).enumerate() {
            let factor = factors[i / grid.c];
            *r = (1.0 - factor) * *r + factor * (b * correction);
        }
        Ok(running)
    };
    let mean = moved(update.mean, &batch.mean, 1.0)?;
    let var = moved(update.var, &batch.var, unbiased)?;
    write_f64(update.mean, &mean)?;
    write_f64(update.var, &var)?;
    counters.iter_mut().for_each(|count| *count += 1);
    Ok(())
}

/// K arrays of one length side by side in one.
#[inline(always)]
pub fn split<A, const K: usize>(mut room: &mut [A]) -> [&mut [A]; K] {
    let len = room.len() / K;
    std::array::from_fn(|_| room.split_off_mut(..len).unwrap_or_default())
}
