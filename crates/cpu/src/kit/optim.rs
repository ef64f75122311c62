//! Optimiser steps on the CPU: one sweep over a parameter, its gradient and its moments.

use spikenorm_core::kit::{AdamSpec, AdamStep, SgdSpec, SgdStep};
use spikenorm_core::{DType, Result, workspace};

use crate::HostMemory;
use crate::element::Real;
use crate::parallel::for_each;
use crate::simd::vectorized;

/// Values of a task.
const TASK_VALUES: usize = 1 << 15;

pub fn sgd<A: Real>(call: &SgdStep<'_, HostMemory>) -> Result<()> {
    let len = call.parameter.len();
    let grad = call.grad.memory.read()?;
    let grad = grad.slice::<A>(call.grad.offset, len);
    let mut momentum = call.momentum.map(|momentum| momentum.memory.write()).transpose()?;
    let mut parameter = call.parameter.memory.write()?;
    let parameter = parameter.slice::<A>(call.parameter.offset, len);
    let offset = call.momentum.map_or(0, |momentum| momentum.offset);
    let mut buffers = momentum.as_mut().map(|memory| memory.slice::<A>(offset, len).chunks_mut(TASK_VALUES));

    let tasks = parameter
        .chunks_mut(TASK_VALUES)
        .zip(grad.chunks(TASK_VALUES))
        .map(|(parameter, grad)| (parameter, grad, buffers.as_mut().and_then(Iterator::next)));
    for_each(3 * size_of_val(grad), workspace::collect(tasks)?, |(parameter, grad, buffer)| {
        sgd_update(call.spec, call.first, parameter, grad, buffer);
        Ok(())
    })?;
    Ok(())
}

pub fn adam<A: Real>(call: &AdamStep<'_, HostMemory>) -> Result<()> {
    let len = call.parameter.len();
    call.step.expect_shape("step", &[])?;
    call.step.expect_dtype("step", DType::I64)?;
    let mut count = call.step.memory.write()?;
    let count = &mut count.slice::<i64>(call.step.offset, 1)[0];
    let step = *count + 1;
    let grad = call.grad.memory.read()?;
    let grad = grad.slice::<A>(call.grad.offset, len);
    let mut first = call.first_moment.memory.write()?;
    let first = first.slice::<A>(call.first_moment.offset, len).chunks_mut(TASK_VALUES);
    let mut second = call.second_moment.memory.write()?;
    let second = second.slice::<A>(call.second_moment.offset, len).chunks_mut(TASK_VALUES);
    let mut parameter = call.parameter.memory.write()?;
    let parameter = parameter.slice::<A>(call.parameter.offset, len).chunks_mut(TASK_VALUES);

    let tasks = workspace::collect(parameter.zip(grad.chunks(TASK_VALUES)).zip(first.zip(second)))?;
    for_each(4 * size_of_val(grad), tasks, |((parameter, grad), (first, second))| {
        adam_update(call.spec, step, parameter, grad, first, second);
        Ok(())
    })?;
    *count = step;
    Ok(())
}

/// A gradient with the decay of its parameter, which is not read without one: 0·∞ is NaN.
#[inline(always)]
fn decayed<A: Real>(grad: A, parameter: A, decay: A) -> A {
    if decay == A::default() { grad } else { grad + decay * parameter }
}

vectorized! {
    fn sgd_update<'a, A: Real>(
        spec: SgdSpec,
        is_first: bool,
        parameter: &'a mut [A],
        grad: &'a [A],
        buffer: Option<&'a mut [A]>,
    ) {
        let [lr, decay] = [spec.lr, spec.weight_decay].map(A::from_f64);
        let Some(buffer) = buffer else {
            for (p, g) in parameter.iter_mut().zip(grad) {
                *p -= lr * decayed(*g, *p, decay);
            }
            return;
        };
        if is_first {
            // Unspecified contents may be NaN, which a factor of zero would keep.
            buffer.fill(A::default());
        }
        let (keep, take) = if is_first { (0.0, 1.0) } else { (spec.momentum, 1.0 - spec.dampening) };
        let [keep, take, momentum] = [keep, take, spec.momentum].map(A::from_f64);
        for ((p, g), b) in parameter.iter_mut().zip(grad).zip(buffer) {
            let g = decayed(*g, *p, decay);
            *b = keep * *b + take * g;
            *p -= lr * if spec.nesterov { g + momentum * *b } else { *b };
        }
    }
}

vectorized! {
    fn adam_update<'a, A: Real>(
        spec: AdamSpec,
        step: i64,
        parameter: &'a mut [A],
        grad: &'a [A],
        first: &'a mut [A],
        second: &'a mut [A],
    ) {
        let [beta1, beta2] = spec.betas;
        let correction = |beta: f64| 1.0 - beta.powf(step as f64);
        let [into_grad, shrink] = if spec.decoupled {
            [0.0, 1.0 - spec.lr * spec.weight_decay]
        } else {
            [spec.weight_decay, 1.0]
        }
        .map(A::from_f64);
        let [step_size, root] = [spec.lr / correction(beta1), correction(beta2).sqrt()].map(A::from_f64);
        let [fresh1, keep2, fresh2, eps] = [1.0 - beta1, beta2, 1.0 - beta2, spec.eps].map(A::from_f64);
        for (((p, g), m), v) in parameter.iter_mut().zip(grad).zip(first).zip(second) {
            let g = decayed(*g, *p, into_grad);
            *m += fresh1 * (g - *m);
            *v = keep2 * *v + fresh2 * g * g;
            *p = shrink * *p - step_size * *m / (v.sqrt() / root + eps);
        }
    }
}
