//! Neurons: forward against a scalar loop, backward against the derivative of a smooth stand-in.

use spikenorm_core::kit::{Charge, NeuronForward, NeuronGrid, NeuronSpec, Surrogate};
use spikenorm_core::{Backend, DType, StepMode};

use super::{FLOATS, expect_close, noise, tensor, tolerance, values};
use crate::{Cpu, CpuTensor};

fn specs() -> Vec<NeuronSpec> {
    let mut all = Vec::new();
    for charge in [
        Charge::Integrate,
        Charge::Leaky { tau: 1.7, decay_input: true },
        Charge::Leaky { tau: 3.0, decay_input: false },
    ] {
        for v_reset in [Some(-0.1), Some(0.0), None] {
            for surrogate in [Surrogate::Atan { alpha: 2.0 }, Surrogate::Sigmoid { alpha: 4.0 }] {
                for detach_reset in [false, true] {
                    all.push(NeuronSpec { charge, v_threshold: 0.6, v_reset, surrogate, detach_reset });
                }
            }
        }
    }
    all
}

/// Charge and reset of one neuron, with spike `s`; returns h and the voltage after.
fn naive_step(spec: &NeuronSpec, v: f64, x: f64, s: impl Fn(f64) -> f64) -> (f64, f64) {
    let u = spec.v_reset.unwrap_or(0.0);
    let h = match spec.charge {
        Charge::Integrate => v + x,
        Charge::Leaky { tau, decay_input: true } => v + (x - (v - u)) / tau,
        Charge::Leaky { tau, decay_input: false } => v - (v - u) / tau + x,
    };
    let s = s(h - spec.v_threshold);
    (h, if spec.v_reset.is_some() { (1.0 - s) * h + s * u } else { h - s * spec.v_threshold })
}

fn heaviside(z: f64) -> f64 {
    f64::from(z >= 0.0)
}

const STEPS: usize = 4;
/// More than a strip.
const NEURONS: usize = 2100;

struct Run {
    spikes: Vec<f64>,
    state: Vec<f64>,
    dx: Vec<f64>,
    state_grad: Vec<f64>,
}

struct Inputs {
    x: CpuTensor,
    v: CpuTensor,
    dy: CpuTensor,
    carry: CpuTensor,
}

fn inputs(dtype: DType) -> Inputs {
    let shape = [STEPS, NEURONS];
    let x: Vec<f64> = noise(1, STEPS * NEURONS).iter().map(|x| 1.5 * x + 0.3).collect();
    Inputs {
        x: tensor(&x, &shape, dtype),
        v: tensor(&noise(2, NEURONS), &shape[1..], dtype.parameter()),
        dy: tensor(&noise(3, STEPS * NEURONS), &shape, dtype),
        carry: tensor(&noise(4, NEURONS), &shape[1..], dtype.parameter()),
    }
}

fn run(spec: &NeuronSpec, inputs: &Inputs) -> Run {
    let grid = NeuronGrid { steps: STEPS, neurons: NEURONS };
    let call = NeuronForward {
        spec,
        grid,
        x: &inputs.x,
        state: Some(&inputs.v),
        state_shape: &[NEURONS],
        record: true,
    };
    let output = Cpu.neuron_forward(&call).expect("runs");
    let unrecorded = Cpu.neuron_forward(&NeuronForward { record: false, ..call }).expect("runs");
    assert!(unrecorded.saved.is_none());
    assert_eq!(values(&unrecorded.spikes), values(&output.spikes));
    let saved = output.saved.expect("recorded");
    let grads = Cpu.neuron_backward(&saved, &inputs.dy, Some(&inputs.carry)).expect("runs");
    Run {
        spikes: values(&output.spikes),
        state: values(&output.state),
        dx: values(&grads.dx),
        state_grad: values(&grads.state),
    }
}

#[test]
fn spikes_and_voltages_equal_a_scalar_loop_in_every_dtype() {
    for (spec, dtype) in specs().into_iter().flat_map(|spec| FLOATS.map(|dtype| (spec.clone(), dtype))) {
        let inputs = inputs(dtype);
        let run = run(&spec, &inputs);
        let (x, mut v) = (values(&inputs.x), values(&inputs.v));
        let mut spikes = vec![0.0; x.len()];
        for t in 0..STEPS {
            for (i, v) in v.iter_mut().enumerate() {
                let (h, after) = naive_step(&spec, *v, x[t * NEURONS + i], heaviside);
                spikes[t * NEURONS + i] = heaviside(h - spec.v_threshold);
                *v = after;
            }
        }
        assert_eq!(run.spikes, spikes, "spikes of {spec:?} in {}", dtype.name());
        expect_close("voltage", &run.state, &v, tolerance(dtype.parameter()));
    }
}

/// A smooth function whose derivative at 0 is the surrogate's, and whose value there is a constant s.
fn derivative(surrogate: Surrogate, z: f64) -> f64 {
    match surrogate {
        Surrogate::Atan { alpha } => alpha / 2.0 / (1.0 + (std::f64::consts::FRAC_PI_2 * alpha * z).powi(2)),
        Surrogate::Sigmoid { alpha } => {
            let s = 1.0 / (1.0 + (-alpha * z).exp());
            alpha * s * (1.0 - s)
        }
    }
}

#[test]
fn gradients_equal_the_chain_rule_through_surrogates_in_every_dtype() {
    for (spec, dtype) in specs().into_iter().flat_map(|spec| FLOATS.map(|dtype| (spec.clone(), dtype))) {
        let inputs = inputs(dtype);
        let run = run(&spec, &inputs);
        let (x, dy) = (values(&inputs.x), values(&inputs.dy));
        let (v, mut e) = (values(&inputs.v), values(&inputs.carry));
        let mut dx = vec![0.0; x.len()];
        for i in 0..NEURONS {
            let (mut v, mut steps) = (v[i], Vec::new());
            for t in 0..STEPS {
                steps.push((v, x[t * NEURONS + i]));
                v = naive_step(&spec, v, x[t * NEURONS + i], heaviside).1;
            }
            for (t, &(v, x)) in steps.iter().enumerate().rev() {
                // The step linearised at its own point: spikes move with the surrogate's slope.
                let z = naive_step(&spec, v, x, heaviside).0 - spec.v_threshold;
                let slope = derivative(spec.surrogate, z);
                let spike = |now: f64| heaviside(z) + slope * (now - z);
                let step =
                    |v: f64, x: f64| {
                        let (h, after) = naive_step(&spec, v, x, |now| {
                            if spec.detach_reset { heaviside(z) } else { spike(now) }
                        });
                        dy[t * NEURONS + i] * spike(h - spec.v_threshold) + e[i] * after
                    };
                let slope_of = |f: &dyn Fn(f64) -> f64| (f(1e-4) - f(-1e-4)) / 2e-4;
                dx[t * NEURONS + i] = slope_of(&|d| step(v, x + d));
                e[i] = slope_of(&|d| step(v + d, x));
            }
        }
        // The linearised step is quadratic at most, so central differences only round: 1e-16/1e-4.
        let tolerance = |dtype| tolerance(dtype).max(1e-10);
        expect_close(&format!("dx of {spec:?} in {}", dtype.name()), &run.dx, &dx, tolerance(dtype));
        expect_close(&format!("dv of {spec:?}"), &run.state_grad, &e, tolerance(dtype.parameter()));
    }
}

#[test]
fn a_nan_or_infinite_neuron_stays_alone() {
    for spec in specs() {
        let clean = inputs(DType::F32);
        let dirty = inputs(DType::F32);
        let mut x = values(&dirty.x);
        (x[5], x[NEURONS + 9]) = (f64::NAN, f64::INFINITY);
        let dirty = Inputs { x: tensor(&x, &[STEPS, NEURONS], DType::F32), ..dirty };
        let (clean, dirty) = (run(&spec, &clean), run(&spec, &dirty));
        for at in (0..STEPS * NEURONS).filter(|at| ![5, 9].contains(&(at % NEURONS))) {
            assert_eq!((clean.spikes[at], clean.dx[at]), (dirty.spikes[at], dirty.dx[at]));
        }
    }
}

#[test]
fn a_state_of_another_shape_and_impossible_arguments_are_refused() {
    let spec = NeuronSpec { charge: Charge::Leaky { tau: 1.0, decay_input: true }, ..specs().remove(0) };
    assert!(spec.check().expect_err("refused").message.contains("tau: expected a number above 1, got 1"));
    let error = spec.grid(&[2, 3, 4], StepMode::Multi, Some(&[4, 3])).expect_err("refused");
    assert!(error.message.contains("expected [4, 3] per time step"), "{error}");
    assert!(spec.grid(&[3], StepMode::Multi, None).is_err());
    assert!(spec.grid(&[0, 3], StepMode::Multi, None).is_err());
}
