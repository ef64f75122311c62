//! The fully connected layer on the CPU: matrix products cut into rows of their result, from the shape
//! alone, so that no task shares a sum with another.

use spikenorm_core::kit::{LayerGrads, LayerOutput, LinearForward, LinearSaved};
use spikenorm_core::{Result, workspace};

use super::scratch::row_sum;
use crate::HostMemory;
use crate::backend::{Cpu, CpuTensor};
use crate::element::Real;
use crate::matmul::{Matrix, MatrixMut, multiply};
use crate::parallel::{SERIAL_BYTES, for_each};
use crate::simd::vectorized;
use crate::tensor_ops::copy_of;

/// Rows of a task of forward or dx.
const ROWS: usize = 32;
/// Tasks that the rows of a weight gradient are cut into, and the least rows of one.
const WEIGHT_TASKS: usize = 16;
const LEAST_WEIGHT_ROWS: usize = 8;

/// Traffic to weigh against the cost of waking threads: a product takes as long at 8 operations a byte.
fn work(rows: usize, in_features: usize, out_features: usize) -> usize {
    (rows * in_features).saturating_mul(out_features) / 4
}

pub fn forward<A: Real>(
    call: &LinearForward<'_, HostMemory>,
) -> Result<LayerOutput<HostMemory, LinearSaved<HostMemory>>> {
    let (spec, rows) = (call.spec, call.rows);
    let (inputs, outputs) = (spec.in_features, spec.out_features);
    let mut out = HostMemory::take(rows * outputs * size_of::<A>())?;
    let x = call.x.memory.read()?;
    let x = x.slice::<A>(call.x.offset, rows * inputs);
    let weight = call.weight.memory.read()?;
    let weight = weight.slice::<A>(call.weight.offset, call.weight.len());
    let bias = call.bias.map(|bias| bias.memory.read()).transpose()?;
    let bias = bias.as_ref().zip(call.bias);
    let bias = bias.map(|(memory, bias)| memory.slice::<A>(bias.offset, bias.len()));

    let ys = out.as_mut_slice::<A>()[..rows * outputs].chunks_mut(ROWS * outputs);
    let tasks = workspace::collect(x.chunks(ROWS * inputs).zip(ys))?;
    for_each(work(rows, inputs, outputs).min(64 * SERIAL_BYTES), tasks, |(x, y)| {
        let rows = x.len() / inputs;
        let weight = Matrix::new(weight, outputs, inputs).transposed();
        multiply(MatrixMut::new(y, rows, outputs), Matrix::new(x, rows, inputs), weight, false)?;
        if let Some(bias) = bias {
            add_to_rows(y, bias);
        }
        Ok(())
    })?;

    let y = CpuTensor::new(out, &spec.output_shape(&call.x.shape), A::DTYPE);
    let saved = if call.record {
        Some(LinearSaved {
            spec: spec.clone(),
            rows,
            x: call.x.clone(),
            weight: copy_of(call.weight)?,
            has_bias: call.bias.is_some(),
        })
    } else {
        None
    };
    Ok(LayerOutput { y, saved })
}

vectorized! {
    fn add_to_rows<'a, A: Real>(matrix: &'a mut [A], row: &'a [A]) {
        for values in matrix.chunks_exact_mut(row.len()) {
            for (value, add) in values.iter_mut().zip(row) {
                *value += *add;
            }
        }
    }
}

pub fn backward<A: Real>(
    saved: &LinearSaved<HostMemory>,
    dy: &CpuTensor,
    needs_dx: bool,
) -> Result<LayerGrads<HostMemory>> {
    let rows = saved.rows;
    let (inputs, outputs) = (saved.spec.in_features, saved.spec.out_features);
    let bytes = work(rows, inputs, outputs).min(64 * SERIAL_BYTES);
    let dtype = A::DTYPE;
    let x = saved.x.memory.read()?;
    let x = x.slice::<A>(saved.x.offset, rows * inputs);
    let gradient = dy.memory.read()?;
    let gradient = gradient.slice::<A>(dy.offset, rows * outputs);
    let dx = if needs_dx { Some(input_grad(saved, gradient, bytes)?) } else { None };

    let mut weight = HostMemory::take(outputs * inputs * size_of::<A>())?;
    let per_task = outputs.div_ceil(WEIGHT_TASKS).max(LEAST_WEIGHT_ROWS);
    let parts = weight.as_mut_slice::<A>()[..outputs * inputs].chunks_mut(per_task * inputs);
    let tasks = workspace::collect(parts.enumerate())?;
    let sums = for_each(bytes, tasks, |(task, dw)| {
        // dyᵀ of the task's features: gathered, so that the product reads it in order.
        let (first, count) = (task * per_task, dw.len() / inputs);
        let mut transposed = workspace::zeros(count * rows)?;
        for (row, dy) in gradient.chunks_exact(outputs).enumerate() {
            for (feature, value) in dy[first..first + count].iter().enumerate() {
                transposed[feature * rows + row] = *value;
            }
        }
        let dw = MatrixMut::new(dw, count, inputs);
        multiply(dw, Matrix::new(&transposed, count, rows), Matrix::new(x, rows, inputs), false)?;
        let sums = transposed.chunks_exact(rows.max(1)).map(row_sum);
        // Without rows there is nothing to chunk, and every sum is zero.
        workspace::collect(sums.chain(std::iter::repeat(0.0)).take(count))
    })?;

    let bias = if saved.has_bias {
        let tensor = Cpu.allocate(&[outputs], dtype)?;
        let mut memory = tensor.memory.write()?;
        let values = memory.slice::<A>(0, outputs).iter_mut();
        values.zip(sums.iter().flatten()).for_each(|(value, sum)| *value = A::from_f64(*sum));
        drop(memory);
        Some(tensor)
    } else {
        None
    };
    Ok(LayerGrads { dx, weight: CpuTensor::new(weight, &[outputs, inputs], dtype), bias })
}

fn input_grad<A: Real>(saved: &LinearSaved<HostMemory>, dy: &[A], bytes: usize) -> Result<CpuTensor> {
    let (inputs, outputs) = (saved.spec.in_features, saved.spec.out_features);
    let mut out = HostMemory::take(saved.rows * inputs * size_of::<A>())?;
    let weight = saved.weight.memory.read()?;
    let weight = weight.slice::<A>(saved.weight.offset, saved.weight.len());
    let dxs = out.as_mut_slice::<A>()[..saved.rows * inputs].chunks_mut(ROWS * inputs);
    let tasks = workspace::collect(dy.chunks(ROWS * outputs).zip(dxs))?;
    for_each(bytes, tasks, |(dy, dx)| {
        let rows = dy.len() / outputs;
        let weight = Matrix::new(weight, outputs, inputs);
        multiply(MatrixMut::new(dx, rows, inputs), Matrix::new(dy, rows, outputs), weight, false)
    })?;
    Ok(CpuTensor::new(out, &saved.x.shape, A::DTYPE))
}
