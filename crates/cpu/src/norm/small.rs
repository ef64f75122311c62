//! The `[rows, C]` tensors beside the grid: read as float64, written in the parameter dtype.

use spikenorm_core::norm::{NormSaved, NormSpec, RowStatistics};
use spikenorm_core::{DType, Grid, Result};

use crate::backend::{Cpu, CpuTensor};
use crate::element::Real;
use crate::tensor_ops::{read_f64, write_f64};

/// Mean in two parts and 1/√(v + eps), `[rows * C]` each, in the type the sweep computes in.
pub struct Normalizer<A> {
    pub high: Vec<A>,
    pub low: Vec<A>,
    pub rstd: Vec<A>,
}

impl<A: Real> Normalizer<A> {
    pub fn new(spec: &NormSpec, statistics: &RowStatistics) -> Self {
        let (high, low) = statistics.mean.iter().map(|&mean| A::split(mean)).unzip();
        let rstd = statistics.var.iter().map(|v| A::from_f64(1.0 / (v + spec.eps).sqrt())).collect();
        Self { high, low, rstd }
    }

    pub fn from_saved(saved: &NormSaved<crate::HostMemory>) -> Result<Self> {
        let values = read_f64(&saved.statistics)?;
        let part = |i: usize| {
            let size = values.len() / 3;
            values[i * size..(i + 1) * size].iter().map(|&v| A::from_f64(v)).collect()
        };
        Ok(Self { high: part(0), low: part(1), rstd: part(2) })
    }

    /// As the `[3, rows, C]` tensor that backward reads.
    pub fn to_tensor(&self, channels: usize) -> Result<CpuTensor> {
        let values: Vec<f64> =
            [&self.high, &self.low, &self.rstd].into_iter().flatten().map(|v| v.to_f64()).collect();
        from_f64(&values, &[3, self.high.len() / channels.max(1), channels], A::DTYPE)
    }
}

pub fn from_f64(values: &[f64], shape: &[usize], dtype: DType) -> Result<CpuTensor> {
    let tensor = Cpu.allocate(shape, dtype)?;
    write_f64(&tensor, values)?;
    Ok(tensor)
}

/// Moves running statistics in place: `(1 − f)·running + f·batch`, variance unbiased.
pub fn update_running(
    update: &spikenorm_core::norm::RunningUpdate<'_, crate::HostMemory>,
    spec: &NormSpec,
    grid: Grid,
    batch: &RowStatistics,
) -> Result<()> {
    let values = spec.values_per_row(grid) as f64;
    let unbiased = values / (values - 1.0);
    let moved = |running: &CpuTensor, batch: &[f64], correction: f64| -> Result<Vec<f64>> {
        let mut running = read_f64(running)?;
        for (i, (r, b)) in running.iter_mut().zip(batch).enumerate() {
            let factor = update.factors[i / grid.c];
            *r = (1.0 - factor) * *r + factor * (b * correction);
        }
        Ok(running)
    };
    let mean = moved(update.mean, &batch.mean, 1.0)?;
    let var = moved(update.var, &batch.var, unbiased)?;
    write_f64(update.mean, &mean)?;
    write_f64(update.var, &var)
}
