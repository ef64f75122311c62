//! Optimiser steps, emulated, against the update rules written out.

use spikenorm_core::DType;
use spikenorm_core::kit::{AdamSpec, SgdSpec};
use spikenorm_cuda::kit::optim;
use spikenorm_cuda::kit::params::{AdamParams, SgdParams};

use crate::support::buffer::{Buffer, address};
use crate::support::emulator::emulator;
use crate::support::kit::{SIZES, normals, one_multiprocessor, run, under_every_schedule};
use crate::support::tolerance::compare;

const STEPS: usize = 3;

#[test]
fn kit_sgd_follows_its_update_rule_at_odd_sizes() {
    let Some(emulator) = emulator() else { return };
    let mut turn = 0;
    for dtype in [DType::F32, DType::F64] {
        for (momentum, dampening, weight_decay, nesterov) in
            [(0.0, 0.0, 0.0, false), (0.0, 0.0, 0.1, false), (0.9, 0.3, 0.01, false), (0.8, 0.0, 0.1, true)]
        {
            for count in SIZES {
                turn += 1;
                let spec = SgdSpec { lr: 0.1, momentum, dampening, weight_decay, nesterov };
                let places = [[0, 0, 0], [1, 1, 1], [1, 0, 1]][turn % 3].map(|place| place * dtype.size());
                let grads: Vec<_> = (0..STEPS).map(|step| normals(turn + step + 1, count, dtype)).collect();
                let mut p = normals(turn, count, dtype);
                let outputs = under_every_schedule(|schedule| {
                    let parameter = Buffer::new(&p, dtype, places[0]);
                    // Nothing but NaN, as fresh memory may be.
                    let buffer = (momentum > 0.0).then(|| Buffer::poisoned(count, dtype, places[1]));
                    for (step, grad) in grads.iter().enumerate() {
                        let grad = Buffer::new(grad, dtype, places[2]);
                        let params = SgdParams {
                            parameter: parameter.address(),
                            grad: grad.address(),
                            momentum: address(&buffer),
                            ..optim::sgd_params(spec, step == 0)
                        };
                        let launch = optim::sgd(dtype, count, &params, &one_multiprocessor()).unwrap();
                        run(emulator, launch, schedule)?;
                    }
                    Ok([Some(parameter), buffer].into_iter().flatten().collect())
                });
                let mut b = vec![0.0; count];
                for (step, grad) in grads.iter().enumerate() {
                    for ((p, b), g) in p.iter_mut().zip(&mut b).zip(grad) {
                        let g = g + weight_decay * *p;
                        *b = if step == 0 { g } else { momentum * *b + (1.0 - dampening) * g };
                        let change = match (momentum > 0.0, nesterov) {
                            (false, _) => g,
                            (true, false) => *b,
                            (true, true) => g + momentum * *b,
                        };
                        *p -= 0.1 * change;
                    }
                }
                let outputs = outputs.unwrap();
                let what = format!("{spec:?} {dtype:?} x {count}");
                compare(&what, &outputs[0].values(), &p, dtype, 1.0).unwrap();
                if let Some(buffer) = outputs.get(1) {
                    compare(&what, &buffer.values(), &b, dtype, 1.0).unwrap();
                }
            }
        }
    }
}

#[test]
fn kit_adam_follows_its_update_rule_and_counts_its_steps_at_odd_sizes() {
    let Some(emulator) = emulator() else { return };
    let mut turn = 0;
    for dtype in [DType::F32, DType::F64] {
        for decoupled in [false, true] {
            for count in SIZES {
                for before in [0, 1000] {
                    turn += 1;
                    let spec =
                        AdamSpec { lr: 0.01, betas: [0.8, 0.95], eps: 1e-3, weight_decay: 0.1, decoupled };
                    let places = [[0; 4], [1; 4], [1, 0, 1, 0]][turn % 3].map(|place| place * dtype.size());
                    let grads: Vec<_> =
                        (0..STEPS).map(|step| normals(turn + step + 1, count, dtype)).collect();
                    let mut p = normals(turn, count, dtype);
                    // Left as it should be by every launch, for the next.
                    let ticket = Buffer::zeroed_words(1);
                    let outputs = under_every_schedule(|schedule| {
                        let parameter = Buffer::new(&p, dtype, places[0]);
                        let [first, second] =
                            [2, 3].map(|i| Buffer::new(&vec![0.0; count], dtype, places[i]));
                        let step = Buffer::new(&[f64::from(before)], DType::I64, 0);
                        for grad in &grads {
                            let grad = Buffer::new(grad, dtype, places[1]);
                            let params = AdamParams {
                                parameter: parameter.address(),
                                grad: grad.address(),
                                first_moment: first.address(),
                                second_moment: second.address(),
                                step: step.address(),
                                ticket: ticket.address(),
                                ..optim::adam_params(spec)
                            };
                            let launch = optim::adam(dtype, count, &params, &one_multiprocessor()).unwrap();
                            run(emulator, launch, schedule)?;
                        }
                        Ok(vec![parameter, first, second, step])
                    });
                    let (mut m, mut v) = (vec![0.0; count], vec![0.0; count]);
                    for (step, grad) in grads.iter().enumerate() {
                        let step = before + step as i32 + 1;
                        let corrections = spec.betas.map(|beta| 1.0 - beta.powi(step));
                        for (((p, m), v), g) in p.iter_mut().zip(&mut m).zip(&mut v).zip(grad) {
                            let g = if decoupled { *g } else { g + 0.1 * *p };
                            if decoupled {
                                *p *= 1.0 - 0.01 * 0.1;
                            }
                            *m = 0.8 * *m + 0.2 * g;
                            *v = 0.95 * *v + 0.05 * g * g;
                            *p -= 0.01 * (*m / corrections[0]) / ((*v / corrections[1]).sqrt() + 1e-3);
                        }
                    }
                    let outputs = outputs.unwrap();
                    for (got, expected) in outputs.iter().zip([&p, &m, &v]) {
                        compare(
                            &format!("{spec:?} {dtype:?} x {count}"),
                            &got.values(),
                            expected,
                            dtype,
                            1.0,
                        )
                        .unwrap();
                    }
                    assert_eq!(outputs[3].values(), [f64::from(before + STEPS as i32)]);
                }
            }
        }
    }
}

#[test]
fn kit_adam_counts_the_steps_of_a_parameter_without_values() {
    let Some(emulator) = emulator() else { return };
    let spec = AdamSpec { lr: 0.01, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0, decoupled: false };
    let (step, ticket) = (Buffer::new(&[7.0], DType::I64, 0), Buffer::zeroed_words(1));
    let params = AdamParams { step: step.address(), ticket: ticket.address(), ..optim::adam_params(spec) };
    run(emulator, optim::adam(DType::F32, 0, &params, &one_multiprocessor()).unwrap(), 0).unwrap();
    assert_eq!(step.values(), [8.0]);
    let nothing = optim::sgd(DType::F32, 0, &SgdParams::default(), &one_multiprocessor()).unwrap();
    assert!(nothing.is_none());
}

#[test]
fn kit_optimizers_refuse_parameters_of_half_types() {
    let device = one_multiprocessor();
    assert!(optim::sgd(DType::F16, 8, &SgdParams::default(), &device).is_err());
    assert!(optim::adam(DType::BF16, 8, &AdamParams::default(), &device).is_err());
}
