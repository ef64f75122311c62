//! Cross entropy and optimiser steps.

use spikenorm_core::kit::{AdamSpec, AdamStep, LogitsGrid, SgdSpec, SgdStep};
use spikenorm_core::{Backend, DType, ErrorCode};

use super::{FLOATS, expect_close, expect_gradient, noise, noisy, tensor, tolerance, values};
use crate::{Cpu, CpuTensor};

/// The mean of a sample's logits over T.
fn naive_mean(logits: &[f64], [t, n, k]: [usize; 3], sample: usize) -> Vec<f64> {
    let over_time = |class: usize| (0..t).map(|t| logits[(t * n + sample) * k + class]).sum::<f64>();
    (0..k).map(|class| over_time(class) / t as f64).collect()
}

/// How many samples have no logit above their label's.
fn naive_correct(logits: &[f64], shape: [usize; 3], labels: &[f64]) -> f64 {
    let is_correct = |sample: &usize| {
        let z = naive_mean(logits, shape, *sample);
        z.iter().all(|other| *other <= z[labels[*sample] as usize])
    };
    (0..shape[1]).filter(is_correct).count() as f64
}

fn naive_loss(logits: &[f64], shape: [usize; 3], labels: &[f64]) -> f64 {
    let [_, n, _] = shape;
    let mut loss = 0.0;
    for sample in 0..n {
        let z = naive_mean(logits, shape, sample);
        loss += z.iter().map(|z| z.exp()).sum::<f64>().ln() - z[labels[sample] as usize];
    }
    loss / n as f64
}

#[test]
fn cross_entropy_equals_the_naive_formula_and_its_gradient_the_difference_quotient() {
    let labels = [2.0, 0.0, 4.0];
    for shape in [&[3, 5][..], &[4, 3, 5][..]] {
        let t = if shape.len() == 3 { 4 } else { 1 };
        let raw: Vec<f64> = noise(1, t * 15).iter().map(|x| 3.0 * x).collect();
        for dtype in FLOATS {
            let logits = tensor(&raw, shape, dtype);
            let grid = LogitsGrid::of(shape, &[3]).expect("fits");
            for label_dtype in [DType::I64, DType::U8] {
                let output =
                    Cpu.cross_entropy(grid, &logits, &tensor(&labels, &[3], label_dtype)).expect("runs");
                let x = values(&logits);
                let want = naive_loss(&x, [t, 3, 5], &labels);
                let report = values(&output.report);
                assert!((report[0] - want).abs() <= 1e-13 * want, "{report:?} {want}");
                assert_eq!(report[1..], [-1.0, naive_correct(&x, [t, 3, 5], &labels)]);
                if dtype == DType::F64 {
                    let loss = |x: &[f64]| vec![naive_loss(x, [t, 3, 5], &labels)];
                    expect_gradient("logits", &x, &values(&output.grad), &[1.0], loss);
                }
            }
        }
    }
}

#[test]
fn cross_entropy_survives_logits_whose_exponential_does_not() {
    let logits = tensor(&[1e4, 0.0, -1e4, 0.0], &[2, 2], DType::F64);
    let grid = LogitsGrid::of(&[2, 2], &[2]).expect("fits");
    let output = Cpu.cross_entropy(grid, &logits, &tensor(&[1.0, 1.0], &[2], DType::I64)).expect("runs");
    assert_eq!(values(&output.report), [5e3, -1.0, 1.0]);
    assert_eq!(values(&output.grad), [0.5, -0.5, 0.0, 0.0]);
}

#[test]
fn labels_outside_the_classes_are_refused() {
    let grid = LogitsGrid::of(&[2, 3], &[2]).expect("fits");
    for label in [3.0, -1.0] {
        let labels = tensor(&[0.0, label], &[2], DType::I64);
        let error = Cpu.cross_entropy(grid, &noisy(1, &[2, 3], DType::F32), &labels).err().expect("refused");
        assert_eq!(error.code, ErrorCode::Argument);
        assert!(error.message.contains("from 0 to 2") && error.message.contains("sample 1"), "{error}");
    }
    assert!(LogitsGrid::of(&[2, 3], &[3]).is_err());
    assert!(LogitsGrid::of(&[0, 3], &[0]).is_err());
}

/// More than a task's worth, in every parameter dtype.
const SHAPE: [usize; 2] = [5, 8000];

fn unset(dtype: DType) -> CpuTensor {
    tensor(&vec![f64::NAN; SHAPE[0] * SHAPE[1]], &SHAPE, dtype)
}

#[test]
fn sgd_follows_the_update_rule_of_pytorch() {
    for dtype in [DType::F64, DType::F32] {
        for (momentum, dampening, weight_decay, nesterov) in
            [(0.0, 0.0, 0.0, false), (0.0, 0.0, 0.1, false), (0.9, 0.3, 0.01, false), (0.8, 0.0, 0.1, true)]
        {
            let spec = SgdSpec { lr: 0.1, momentum, dampening, weight_decay, nesterov };
            let (parameter, buffer) = (noisy(1, &SHAPE, dtype), unset(dtype));
            let mut p = values(&parameter);
            let mut b = vec![0.0; p.len()];
            for step in 0..3 {
                let grad = noisy(10 + step, &SHAPE, dtype);
                let held = (momentum > 0.0).then_some(&buffer);
                let call =
                    SgdStep { spec, parameter: &parameter, grad: &grad, momentum: held, first: step == 0 };
                Cpu.sgd_step(&call).expect("steps");
                for ((p, b), g) in p.iter_mut().zip(&mut b).zip(values(&grad)) {
                    let g = g + weight_decay * *p;
                    *b = if step == 0 { g } else { momentum * *b + (1.0 - dampening) * g };
                    *p -= 0.1
                        * if nesterov {
                            g + momentum * *b
                        } else {
                            *b * f64::from(momentum > 0.0) + g * f64::from(momentum == 0.0)
                        };
                }
            }
            expect_close(&format!("{spec:?}"), &values(&parameter), &p, tolerance(dtype));
        }
    }
}

#[test]
fn adam_and_adamw_follow_the_update_rule_of_pytorch() {
    for dtype in [DType::F64, DType::F32] {
        for decoupled in [false, true] {
            let spec = AdamSpec { lr: 0.01, betas: [0.8, 0.95], eps: 1e-3, weight_decay: 0.1, decoupled };
            let parameter = noisy(1, &SHAPE, dtype);
            let zero = || tensor(&vec![0.0; SHAPE[0] * SHAPE[1]], &SHAPE, dtype);
            let (first, second) = (zero(), zero());
            let count = tensor(&[0.0], &[], DType::I64);
            let mut p = values(&parameter);
            let (mut m, mut v) = (vec![0.0; p.len()], vec![0.0; p.len()]);
            for step in 1..=3u32 {
                let grad = noisy(10 + u64::from(step), &SHAPE, dtype);
                let call = AdamStep {
                    spec,
                    parameter: &parameter,
                    grad: &grad,
                    first_moment: &first,
                    second_moment: &second,
                    step: &count,
                };
                Cpu.adam_step(&call).expect("steps");
                assert_eq!(values(&count), [f64::from(step)]);
                let corrections = spec.betas.map(|beta| 1.0 - beta.powi(step as i32));
                for (((p, m), v), g) in p.iter_mut().zip(&mut m).zip(&mut v).zip(values(&grad)) {
                    let g = if decoupled { g } else { g + 0.1 * *p };
                    if decoupled {
                        *p *= 1.0 - 0.01 * 0.1;
                    }
                    *m = 0.8 * *m + 0.2 * g;
                    *v = 0.95 * *v + 0.05 * g * g;
                    *p -= 0.01 * (*m / corrections[0]) / ((*v / corrections[1]).sqrt() + 1e-3);
                }
            }
            expect_close(&format!("{spec:?}"), &values(&parameter), &p, tolerance(dtype));
        }
    }
}

#[test]
fn optimizers_refuse_arguments_that_cannot_work() {
    let sgd = SgdSpec { lr: 0.1, momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: true };
    assert!(sgd.check().is_err());
    assert!(SgdSpec { lr: f64::NAN, nesterov: false, ..sgd }.check().is_err());
    let adam = AdamSpec { lr: 1e-3, betas: [0.9, 1.0], eps: 1e-8, weight_decay: 0.0, decoupled: true };
    assert!(adam.check().expect_err("refused").message.contains("betas"));
}
