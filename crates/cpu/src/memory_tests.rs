//! Every allocation of every operation fails once: the error says so, nothing has changed, and the next call works.

use spikenorm_core::kit::{
    AdamSpec, AdamStep, Charge, Conv2dForward, Conv2dSpec, LinearForward, LinearSpec, LogitsGrid,
    NeuronForward, NeuronSpec, PoolSpec, SgdSpec, SgdStep, Surrogate, Window,
};
use spikenorm_core::norm::{Layout, NormForward, NormSpec, Rows, RunningUpdate, Statistics};
use spikenorm_core::workspace::failpoint;
use spikenorm_core::{Backend, DType, ErrorCode, Grid, NeuNormForward, NeuNormSpec, Result, StepMode};

use crate::backend::{Cpu, CpuTensor};
use crate::tensor_ops::{read_f64, write_f64};

const FLOATS: [DType; 4] = [DType::F64, DType::F32, DType::F16, DType::BF16];

fn tensor(shape: &[usize], dtype: DType) -> CpuTensor {
    let tensor = Cpu.allocate(shape, dtype).expect("allocates");
    let values: Vec<f64> = (0..tensor.len()).map(|i| ((i * 37 + 11) % 23) as f64 / 8.0 - 1.0).collect();
    write_f64(&tensor, &values).expect("writes");
    tensor
}

/// Runs it with room for no allocation, for one, and so on, until it succeeds. `seen`: tensors that it is given.
fn fail_everywhere<T>(what: &str, seen: &[&CpuTensor], run: impl Fn() -> Result<T>) -> T {
    let values = || -> Vec<Vec<f64>> { seen.iter().map(|seen| read_f64(seen).expect("reads")).collect() };
    let before = values();
    for allocations in 0.. {
        failpoint::set(Some(allocations));
        let outcome = run();
        failpoint::set(None);
        match outcome {
            Ok(output) => {
                assert!(allocations > 0, "{what} allocates");
                return output;
            }
            Err(error) => {
                assert_eq!(error.code, ErrorCode::OutOfMemory, "{what}, allocation {allocations}");
                assert!(values() == before, "{what}, allocation {allocations}: something has changed");
            }
        }
    }
    unreachable!()
}

#[test]
fn batch_norms() {
    let grids = [
        Grid { t: 1, n: 2, c: 3, s: 16 },
        Grid { t: 2, n: 3, c: 4, s: 5 },
        Grid { t: 2, n: 9, c: 4, s: 1 },
        Grid { t: 1, n: 2, c: 2, s: 1500 },
    ];
    for (dtype, grid) in FLOATS.into_iter().flat_map(|dtype| grids.map(|grid| (dtype, grid))) {
        for (rows, running) in
            [(Rows::Shared, false), (Rows::PerStep, false), (Rows::Shared, true), (Rows::PerStep, true)]
        {
            let count = rows.count(grid.t);
            let spec = NormSpec {
                spatial: 2,
                channels: grid.c,
                layout: Layout::Contiguous,
                steps: None,
                statistics: rows,
                weight: rows,
                bias: rows,
                time_scale: true,
                eps: 1e-5,
            };
            let narrow = dtype.parameter();
            let (x, dy) = (
                tensor(&[grid.t, grid.n, grid.c, grid.s], dtype),
                tensor(&[grid.t, grid.n, grid.c, grid.s], dtype),
            );
            let small = || tensor(&[count, grid.c], narrow);
            let (weight, bias, mean, var) = (small(), small(), small(), small());
            let (scale, counters) = (tensor(&[grid.t], narrow), tensor(&[count], DType::I64));
            let update = RunningUpdate { mean: &mean, var: &var, counters: &counters, momentum: None };
            let call = NormForward {
                spec: &spec,
                grid,
                x: &x,
                weight: Some(&weight),
                bias: Some(&bias),
                scale: Some(&scale),
                statistics: match running {
                    true => Statistics::Running { mean: &mean, var: &var },
                    false => Statistics::Batch(Some(update)),
                },
                record: true,
            };
            let seen = [&x, &weight, &bias, &mean, &var, &scale, &counters];
            let output =
                fail_everywhere(&format!("forward {dtype:?} {grid:?}"), &seen, || Cpu.norm_forward(&call));
            let saved = output.saved.expect("recorded");
            fail_everywhere(&format!("backward {dtype:?} {grid:?}"), &seen, || {
                Cpu.norm_backward(&saved, &dy)
            });
        }
    }
}

#[test]
fn neu_norms() {
    for (dtype, layout) in FLOATS
        .into_iter()
        .flat_map(|dtype| [Layout::Contiguous, Layout::ChannelsLast].map(|layout| (dtype, layout)))
    {
        for (t, shared) in [(1, false), (3, false), (3, true)] {
            let (n, c, height, width) = (2, 3, 2, 5);
            let spec = NeuNormSpec { channels: c, height, width, layout, k: 0.9, shared };
            let grid = Grid { t, n, c, s: height * width };
            let (x, dy) =
                (tensor(&[t, n, c, height, width], dtype), tensor(&[t, n, c, height, width], dtype));
            let narrow = dtype.parameter();
            let weight = tensor(&spec.weight_shape(), narrow);
            let (state, carry) =
                (tensor(&[n, 1, height, width], narrow), tensor(&[n, 1, height, width], narrow));
            let call = NeuNormForward {
                spec: &spec,
                grid,
                x: &x,
                weight: &weight,
                state: Some(&state),
                record: true,
            };
            let seen = [&x, &dy, &weight, &state, &carry];
            let output = fail_everywhere("forward", &seen, || Cpu.neu_norm_forward(&call));
            let saved = output.saved.expect("recorded");
            fail_everywhere("backward", &seen, || Cpu.neu_norm_backward(&saved, &dy, Some(&carry)));
        }
    }
}

#[test]
fn layers_of_the_kit() {
    for dtype in FLOATS {
        let narrow = dtype.parameter();
        let x = tensor(&[3, 2, 6, 6], dtype);
        for stride in [1, 2] {
            let window = Window { kernel: [3, 3], stride: [stride, stride], padding: [1, 1] };
            let spec = Conv2dSpec { in_channels: 2, out_channels: 3, window };
            let frames = spec.frames(&x.shape, StepMode::Single).expect("fits");
            let (weight, bias) = (tensor(&spec.weight_shape(), narrow), tensor(&[3], narrow));
            let call = Conv2dForward {
                spec: &spec,
                frames,
                x: &x,
                weight: &weight,
                bias: Some(&bias),
                record: true,
            };
            let output = fail_everywhere("conv2d", &[&x, &weight, &bias], || Cpu.conv2d_forward(&call));
            let (saved, dy) = (output.saved.expect("recorded"), tensor(&output.y.shape, dtype));
            fail_everywhere("conv2d backward", &[&x, &dy], || Cpu.conv2d_backward(&saved, &dy, true));
        }
        let spec = PoolSpec { window: Window { kernel: [2, 2], stride: [2, 2], padding: [0, 0] } };
        let frames = spec.frames(&x.shape, StepMode::Single).expect("fits");
        fail_everywhere("avg_pool2d", &[&x], || Cpu.avg_pool2d_forward(&spec, frames, &x));
        let output = fail_everywhere("max_pool2d", &[&x], || Cpu.max_pool2d_forward(&spec, frames, &x, true));
        let (saved, dy) = (output.saved.expect("recorded"), tensor(&output.y.shape, dtype));
        fail_everywhere("max_pool2d backward", &[&dy], || Cpu.max_pool2d_backward(&saved, &dy));

        let x = tensor(&[40, 6], dtype);
        let spec = LinearSpec { in_features: 6, out_features: 5 };
        let (weight, bias) = (tensor(&[5, 6], narrow), tensor(&[5], narrow));
        let call =
            LinearForward { spec: &spec, rows: 40, x: &x, weight: &weight, bias: Some(&bias), record: true };
        let output = fail_everywhere("linear", &[&x, &weight, &bias], || Cpu.linear_forward(&call));
        let (saved, dy) = (output.saved.expect("recorded"), tensor(&[40, 5], dtype));
        fail_everywhere("linear backward", &[&x, &dy], || Cpu.linear_backward(&saved, &dy, true));

        let spec = NeuronSpec {
            charge: Charge::Leaky { tau: 2.0, decay_input: true },
            v_threshold: 1.0,
            v_reset: None,
            surrogate: Surrogate::Atan { alpha: 2.0 },
            detach_reset: false,
        };
        let grid = spec.grid(&x.shape, StepMode::Multi, None).expect("fits");
        let state = tensor(&[6], narrow);
        let call =
            NeuronForward { spec: &spec, grid, x: &x, state: Some(&state), state_shape: &[6], record: true };
        let output = fail_everywhere("neuron", &[&x, &state], || Cpu.neuron_forward(&call));
        let (saved, dy) = (output.saved.expect("recorded"), tensor(&x.shape, dtype));
        fail_everywhere("neuron backward", &[&dy], || Cpu.neuron_backward(&saved, &dy, Some(&state)));

        let (logits, labels) = (tensor(&[2, 3, 4], dtype), tensor(&[3], DType::U8));
        write_f64(&labels, &[0.0, 3.0, 1.0]).expect("writes");
        let grid = LogitsGrid::of(&logits.shape, &labels.shape).expect("fits");
        fail_everywhere("cross_entropy", &[&logits, &labels], || Cpu.cross_entropy(grid, &logits, &labels));
        fail_everywhere("add", &[&x], || Cpu.add(&x, &x));
    }
}

#[test]
fn what_changes_tensors_in_place() {
    for dtype in [DType::F64, DType::F32] {
        let new = || tensor(&[7], dtype);
        let (parameter, grad, first_moment, second_moment) = (new(), new(), new(), new());
        let step = tensor(&[], DType::I64);
        let spec = SgdSpec { lr: 0.1, momentum: 0.9, dampening: 0.0, weight_decay: 0.1, nesterov: false };
        let momentum = Some(&first_moment);
        let seen = [&parameter, &grad, &first_moment, &second_moment, &step];
        fail_everywhere("sgd", &seen, || {
            Cpu.sgd_step(&SgdStep { spec, parameter: &parameter, grad: &grad, momentum, first: false })
        });
        let spec = AdamSpec { lr: 0.1, betas: [0.9, 0.99], eps: 1e-8, weight_decay: 0.1, decoupled: false };
        write_f64(&second_moment, &[1.0; 7]).expect("writes");
        write_f64(&step, &[3.0]).expect("writes");
        let call = AdamStep {
            spec,
            parameter: &parameter,
            grad: &grad,
            first_moment: &first_moment,
            second_moment: &second_moment,
            step: &step,
        };
        fail_everywhere("adam", &seen, || Cpu.adam_step(&call));
        // Of overlapping memory, which is copied first.
        let overlapping = parameter.rows(1, 3);
        fail_everywhere("accumulate", &seen, || Cpu.accumulate(&parameter.rows(0, 3), &overlapping));
        fail_everywhere("copy", &seen, || Cpu.copy(&parameter.rows(0, 3), &overlapping));
    }
}
