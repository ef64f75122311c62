//! Neurons, emulated, against the recurrences written out.

use spikenorm_core::DType;
use spikenorm_core::kit::{Charge, NeuronGrid, NeuronSpec, Surrogate};
use spikenorm_cuda::kit::neuron;
use spikenorm_cuda::kit::params::NeuronParams;

use crate::support::buffer::{Buffer, address, rounded};
use crate::support::case::Random;
use crate::support::emulator::{Emulator, emulator};
use crate::support::kit::{FLOATS, normals, one_multiprocessor, run, under_every_schedule};
use crate::support::tolerance::compare;

const CHARGES: [Charge; 4] = [
    Charge::Integrate,
    Charge::Leaky { tau: 2.0, decay_input: true },
    Charge::Leaky { tau: 2.0, decay_input: false },
    Charge::Leaky { tau: 1.7, decay_input: true },
];

#[derive(Default)]
struct Expected {
    spikes: Vec<f64>,
    voltages: Vec<f64>,
    state: Vec<f64>,
    dx: Vec<f64>,
    state_grad: Vec<f64>,
}

struct Inputs {
    x: Vec<f64>,
    dy: Vec<f64>,
    state: Option<Vec<f64>>,
    carry: Option<Vec<f64>>,
}

fn naive(spec: &NeuronSpec, grid: NeuronGrid, inputs: &Inputs) -> Expected {
    let NeuronGrid { steps, neurons } = grid;
    let (threshold, rest) = (spec.v_threshold, spec.v_reset.unwrap_or(0.0));
    let fires = |h: f64| if h >= threshold { 1.0 } else { 0.0 };
    let mut out = Expected {
        spikes: vec![0.0; steps * neurons],
        voltages: vec![0.0; steps * neurons],
        dx: vec![0.0; steps * neurons],
        ..Expected::default()
    };
    for i in 0..neurons {
        let mut v = inputs.state.as_ref().map_or(rest, |state| state[i]);
        for t in 0..steps {
            let x = inputs.x[t * neurons + i];
            let h = match spec.charge {
                Charge::Integrate => v + x,
                Charge::Leaky { tau, decay_input: true } => v + (x - (v - rest)) / tau,
                Charge::Leaky { tau, decay_input: false } => v - (v - rest) / tau + x,
            };
            let s = fires(h);
            out.voltages[t * neurons + i] = h;
            out.spikes[t * neurons + i] = s;
            v = if spec.v_reset.is_some() { (1.0 - s) * h + s * rest } else { h - s * threshold };
        }
        out.state.push(v);
        let mut e = inputs.carry.as_ref().map_or(0.0, |carry| carry[i]);
        for t in (0..steps).rev() {
            let h = out.voltages[t * neurons + i];
            let (s, z) = (fires(h), h - threshold);
            let g = match spec.surrogate {
                Surrogate::Atan { alpha } => {
                    alpha / 2.0 / (1.0 + (std::f64::consts::FRAC_PI_2 * alpha * z).powi(2))
                }
                Surrogate::Sigmoid { alpha } => {
                    let sigmoid = 1.0 / (1.0 + (-alpha * z).exp());
                    alpha * sigmoid * (1.0 - sigmoid)
                }
            };
            let reset = if spec.detach_reset { 0.0 } else { g };
            let through =
                if spec.v_reset.is_some() { (1.0 - s) + (rest - h) * reset } else { 1.0 - threshold * reset };
            let delta = inputs.dy[t * neurons + i] * g + e * through;
            let (to_input, to_state) = match spec.charge {
                Charge::Integrate => (1.0, 1.0),
                Charge::Leaky { tau, decay_input: true } => (1.0 / tau, 1.0 - 1.0 / tau),
                Charge::Leaky { tau, .. } => (1.0, 1.0 - 1.0 / tau),
            };
            out.dx[t * neurons + i] = delta * to_input;
            e = delta * to_state;
        }
        out.state_grad.push(e);
    }
    out
}

struct Case {
    spec: NeuronSpec,
    grid: NeuronGrid,
    dtype: DType,
    carried: bool,
    record: bool,
    /// Values by which the tensors miss an aligned address.
    places: usize,
    inputs: Inputs,
}

fn check(emulator: &Emulator, case: &Case) -> Result<(), String> {
    let Case { spec, grid, dtype, record, inputs, .. } = case;
    let (device, p, total) = (one_multiprocessor(), dtype.parameter(), grid.steps * grid.neurons);
    let offset = |dtype: DType| case.places * dtype.size();
    let expected = naive(spec, *grid, inputs);
    let held = |values: &Option<Vec<f64>>| values.as_ref().map(|v| Buffer::new(v, p, offset(p)));

    let x = Buffer::new(&inputs.x, *dtype, offset(*dtype));
    let state = held(&inputs.state);
    let forward = under_every_schedule(|schedule| {
        let out = Buffer::poisoned(total, *dtype, offset(*dtype));
        let state_out = Buffer::poisoned(grid.neurons, p, offset(p));
        let voltages = record.then(|| Buffer::poisoned(total, p, offset(p)));
        let params = NeuronParams {
            input: x.address(),
            out: out.address(),
            state: address(&state),
            state_out: state_out.address(),
            voltages: address(&voltages),
            ..neuron::params(spec)
        };
        run(emulator, neuron::launch("forward", *dtype, *grid, &params, &device).unwrap(), schedule)?;
        Ok([Some(out), Some(state_out), voltages].into_iter().flatten().collect())
    })?;
    if forward[0].values() != expected.spikes {
        return Err("other spikes".into());
    }
    compare("state", &forward[1].values(), &expected.state, p, 1.0)?;
    let Some(voltages) = forward.get(2) else { return Ok(()) };
    compare("voltages", &voltages.values(), &expected.voltages, p, 1.0)?;

    let dy = Buffer::new(&inputs.dy, *dtype, offset(*dtype));
    let carry = held(&inputs.carry);
    let backward = under_every_schedule(|schedule| {
        let out = Buffer::poisoned(total, *dtype, offset(*dtype));
        let state_out = Buffer::poisoned(grid.neurons, p, offset(p));
        let params = NeuronParams {
            input: dy.address(),
            out: out.address(),
            state: address(&carry),
            state_out: state_out.address(),
            voltages: voltages.address(),
            ..neuron::params(spec)
        };
        run(emulator, neuron::launch("backward", *dtype, *grid, &params, &device).unwrap(), schedule)?;
        Ok(vec![out, state_out])
    })?;
    compare("dx", &backward[0].values(), &expected.dx, *dtype, 0.0)?;
    compare("dstate", &backward[1].values(), &expected.state_grad, p, 1.0)
}

/// Inputs in eighths where time constants are powers of two: voltages are exact in every dtype, and some meet
/// the threshold exactly.
fn inputs(spec: &NeuronSpec, grid: NeuronGrid, dtype: DType, carried: bool, seed: usize) -> Inputs {
    let total = grid.steps * grid.neurons;
    let mut random = Random::new(seed as u64);
    let exact = !matches!(spec.charge, Charge::Leaky { tau, .. } if tau.log2().fract() != 0.0);
    let mut draw = |count: usize, dtype: DType| -> Vec<f64> {
        let values: Vec<f64> = (0..count)
            .map(|_| if exact { random.below(17) as f64 / 8.0 - 0.5 } else { random.normal() + 0.5 })
            .collect();
        rounded(&values, dtype)
    };
    let p = dtype.parameter();
    Inputs {
        x: draw(total, dtype),
        dy: normals(seed + 1, total, dtype),
        state: carried.then(|| draw(grid.neurons, p)),
        carry: carried.then(|| normals(seed + 2, grid.neurons, p)),
    }
}

#[test]
fn kit_neurons_match_the_recurrence_in_every_dtype_at_odd_sizes() {
    let Some(emulator) = emulator() else { return };
    let grids = [(1, 1), (4, 31), (7, 1003), (3, 4096), (1, 1003), (5, 52), (6, 24)];
    let mut seed = 0;
    for charge in CHARGES {
        for v_reset in [None, Some(0.0), Some(-0.25)] {
            for surrogate in [Surrogate::Atan { alpha: 2.0 }, Surrogate::Sigmoid { alpha: 4.0 }] {
                for detach_reset in [false, true] {
                    for dtype in FLOATS {
                        seed += 1;
                        let (steps, neurons) = grids[seed % grids.len()];
                        let grid = NeuronGrid { steps, neurons };
                        let spec = NeuronSpec { charge, v_threshold: 1.0, v_reset, surrogate, detach_reset };
                        let carried = seed % 3 != 0;
                        let inputs = inputs(&spec, grid, dtype, carried, seed);
                        let case = Case {
                            spec,
                            grid,
                            dtype,
                            carried,
                            record: seed % 11 != 0,
                            places: [0, 0, 1, 3][seed / 5 % 4],
                            inputs,
                        };
                        check(emulator, &case).unwrap_or_else(|why| {
                            panic!(
                                "{why}\n{:?} {grid:?} {dtype:?} carried {} places {}",
                                case.spec, case.carried, case.places
                            )
                        });
                    }
                }
            }
        }
    }
}

#[test]
fn kit_neurons_far_from_the_threshold_have_finite_gradients() {
    let Some(emulator) = emulator() else { return };
    for dtype in [DType::F32, DType::F64] {
        let grid = NeuronGrid { steps: 1, neurons: 6 };
        let spec = NeuronSpec {
            charge: Charge::Integrate,
            v_threshold: 1.0,
            v_reset: None,
            surrogate: Surrogate::Sigmoid { alpha: 4.0 },
            detach_reset: true,
        };
        let x = vec![1000.0, -1000.0, 20.0, -20.0, 1.0, 0.5];
        let inputs = Inputs { x, dy: vec![1.0; 6], state: None, carry: None };
        let case = Case { spec, grid, dtype, carried: false, record: true, places: 0, inputs };
        check(emulator, &case).unwrap_or_else(|why| panic!("{why}\n{dtype:?}"));
    }
}

#[test]
fn kit_neurons_of_no_batch_launch_nothing_and_integers_are_refused() {
    let params = NeuronParams::default();
    let none = NeuronGrid { steps: 3, neurons: 0 };
    let device = one_multiprocessor();
    assert!(neuron::launch("forward", DType::F16, none, &params, &device).unwrap().is_none());
    assert!(neuron::launch("forward", DType::U8, none, &params, &device).is_err());
}
