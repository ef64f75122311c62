//! Cross entropy on the CPU, in float64: logits are small beside what made them.

use spikenorm_core::kit::{CrossEntropyOutput, LogitsGrid};
use spikenorm_core::{DType, Result, workspace};

use crate::HostMemory;
use crate::backend::{Cpu, CpuTensor};
use crate::tensor_ops::{read_f64, write_f64};

fn classes(grid: LogitsGrid, labels: &CpuTensor) -> Result<Vec<usize>> {
    let memory = labels.memory.read()?;
    let class = |(sample, label): (usize, i64)| grid.class(sample, label);
    if labels.dtype == DType::U8 {
        let labels = memory.slice::<u8>(labels.offset, grid.n).iter().map(|&label| i64::from(label));
        workspace::try_collect(labels.enumerate().map(class))
    } else {
        let labels = memory.slice::<i64>(labels.offset, grid.n).iter().copied();
        workspace::try_collect(labels.enumerate().map(class))
    }
}

pub fn cross_entropy(
    grid: LogitsGrid,
    logits: &CpuTensor,
    labels: &CpuTensor,
) -> Result<CrossEntropyOutput<HostMemory>> {
    let classes = classes(grid, labels)?;
    let values = read_f64(logits)?;
    let step = grid.n * grid.k;
    let mut decoded = workspace::zeros(step)?;
    for values in values.chunks_exact(step) {
        for (sum, value) in decoded.iter_mut().zip(values) {
            *sum += value;
        }
    }
    let scale = 1.0 / (grid.n * grid.t) as f64;
    let (mut loss, mut correct) = (0.0, 0usize);
    for (row, &class) in decoded.chunks_exact_mut(grid.k).zip(&classes) {
        row.iter_mut().for_each(|value| *value /= grid.t as f64);
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        correct += usize::from(row.iter().position(|&value| value == largest) == Some(class));
        let label = row[class] - largest;
        row.iter_mut().for_each(|value| *value = (*value - largest).exp());
        let total: f64 = row.iter().sum();
        loss += total.ln() - label;
        row.iter_mut().for_each(|value| *value = *value / total * scale);
        row[class] -= scale;
    }
    let grad = Cpu.allocate(&logits.shape, logits.dtype)?;
    let steps = grad.reshape(&[grid.t, step])?;
    for t in 0..grid.t {
        write_f64(&steps.rows(t, 1), &decoded)?;
    }
    let report = Cpu.allocate(&[3], DType::F64)?;
    // All labels are classes by now.
    write_f64(&report, &[loss / grid.n as f64, -1.0, correct as f64])?;
    Ok(CrossEntropyOutput { report, grad })
}
