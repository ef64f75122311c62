//! The norms' detour beside the direct way, on processors that have both. (The kit's tests are of every dtype.)

use spikenorm_core::norm::{
    Layout, NormForward, NormGrads, NormOutput, NormSaved, NormSpec, Rows, RunningUpdate, Statistics,
};
use spikenorm_core::{Backend, Grid, NeuNormForward, NeuNormOutput, NeuNormSpec};

use super::*;
use crate::HostMemory;
use crate::tensor_ops::{read_f64, write_f64};

fn wave(shape: &[usize], dtype: DType, phase: f64) -> CpuTensor {
    let tensor = Cpu.allocate(shape, dtype).expect("allocates");
    let values: Vec<f64> = (0..tensor.len()).map(|i| (0.7 * i as f64 + phase).sin() + 0.3).collect();
    write_f64(&tensor, &values).expect("writes");
    tensor
}

fn expect_same(what: &str, got: &CpuTensor, expected: &CpuTensor, tolerance: f64) {
    assert_eq!((&got.shape, got.dtype), (&expected.shape, expected.dtype), "{what}");
    let (got, expected) = (read_f64(got).expect("reads"), read_f64(expected).expect("reads"));
    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
        let error = (got - expected).abs() / expected.abs().max(1.0);
        assert!(error <= tolerance, "{what}[{i}]: expected {expected}, got {got}");
    }
}

const HALVES: [(DType, f64); 2] = [(DType::F16, 1.0 / 1024.0), (DType::BF16, 1.0 / 128.0)];

#[test]
fn norms_give_the_same_either_way() {
    let grid = Grid { t: 2, n: 3, c: 5, s: 7 };
    let spec = NormSpec {
        spatial: 1,
        channels: grid.c,
        layout: Layout::Contiguous,
        steps: None,
        statistics: Rows::Shared,
        weight: Rows::Shared,
        bias: Rows::Shared,
        time_scale: true,
        eps: 1e-5,
    };
    for (dtype, tolerance) in HALVES {
        let shape = [grid.t, grid.n, grid.c, grid.s];
        let (x, dy) = (wave(&shape, dtype, 0.0), wave(&shape, dtype, 1.0));
        let [weight, bias] = [2.0, 3.0].map(|phase| wave(&[1, grid.c], DType::F32, phase));
        let scale = wave(&[grid.t], DType::F32, 4.0);
        let run =
            |forward: fn(&NormForward<'_, HostMemory>) -> Result<NormOutput<HostMemory>>,
             backward: fn(&NormSaved<HostMemory>, &CpuTensor) -> Result<NormGrads<HostMemory>>| {
                let [mean, var] = [5.0, 6.0].map(|phase| wave(&[1, grid.c], DType::F32, phase));
                let counters = Cpu.upload(&[0; 8], &[1], DType::I64).expect("uploads");
                let update = RunningUpdate { mean: &mean, var: &var, counters: &counters, momentum: None };
                let statistics = Statistics::Batch(Some(update));
                let (weight, bias, scale) = (Some(&weight), Some(&bias), Some(&scale));
                let call =
                    NormForward { spec: &spec, grid, x: &x, weight, bias, scale, statistics, record: true };
                let output = forward(&call).expect("runs");
                let saved = output.saved.expect("recorded");
                assert_eq!(saved.x.dtype, dtype);
                let grads = backward(&saved, &dy).expect("runs");
                let small = [grads.weight, grads.bias, grads.scale].map(|grad| grad.expect("has one"));
                ([output.y, grads.dx], small, [mean, var, counters])
            };
        let (wide, small, running) = run(norm_forward, norm_backward);
        let direct = run(|call| Cpu.norm_forward(call), |saved, dy| Cpu.norm_backward(saved, dy));
        for (got, expected) in wide.iter().zip(&direct.0) {
            expect_same("y or dx", got, expected, tolerance);
        }
        for (got, expected) in small.iter().chain(&running).zip(direct.1.iter().chain(&direct.2)) {
            expect_same("gradient or running statistics", got, expected, 1e-6);
        }
    }
}

#[test]
fn neu_norm_gives_the_same_either_way() {
    let (grid, height, width) = (Grid { t: 3, n: 2, c: 4, s: 6 }, 2, 3);
    let spec =
        NeuNormSpec { channels: grid.c, height, width, layout: Layout::Contiguous, k: 0.8, shared: false };
    for (dtype, tolerance) in HALVES {
        let shape = [grid.t, grid.n, grid.c, height, width];
        let (x, dy) = (wave(&shape, dtype, 0.0), wave(&shape, dtype, 1.0));
        let weight = wave(&spec.weight_shape(), DType::F32, 2.0);
        let [state, carry] = [3.0, 4.0].map(|phase| wave(&[grid.n, 1, height, width], DType::F32, phase));
        let call =
            NeuNormForward { spec: &spec, grid, x: &x, weight: &weight, state: Some(&state), record: true };
        let run = |output: NeuNormOutput<HostMemory>, is_direct: bool| {
            let saved = output.saved.expect("recorded");
            assert_eq!(saved.input_dtype, dtype);
            let grads = if is_direct {
                Cpu.neu_norm_backward(&saved, &dy, Some(&carry))
            } else {
                neu_norm_backward(&saved, &dy, Some(&carry))
            };
            let grads = grads.expect("runs");
            ([output.y, grads.dx], [output.state, grads.weight, grads.state])
        };
        let (wide, small) = run(neu_norm_forward(&call).expect("runs"), false);
        let direct = run(Cpu.neu_norm_forward(&call).expect("runs"), true);
        for (got, expected) in wide.iter().zip(&direct.0) {
            expect_same("y or dx", got, expected, tolerance);
        }
        for (got, expected) in small.iter().zip(&direct.1) {
            expect_same("state or gradient", got, expected, 1e-6);
        }
    }
}
