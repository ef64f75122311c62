//! The training kit's launcher on a GPU, where there is one, beside the CPU backend: the same calls, the same
//! results. Elsewhere these tests say why they skip.

#![allow(clippy::unwrap_used)]

#[path = "emulation/support/mod.rs"]
mod support;

use std::sync::OnceLock;

use spikenorm_core::kit::{
    AdamSpec, AdamStep, AvgPoolSaved, Charge, LogitsGrid, NeuronForward, NeuronSpec, PoolSpec, SgdSpec,
    SgdStep, Surrogate, Window,
};
use spikenorm_core::{Backend, DType, ErrorCode, StepMode, Tensor};
use spikenorm_cpu::{Cpu, CpuTensor};
use spikenorm_cuda::driver::{Cuda, DeviceMemory, probe};
use support::buffer::Buffer;
use support::case::Random;
use support::kit::{FLOATS, normals};
use support::tolerance::compare_rounded;

type CudaTensor = Tensor<DeviceMemory>;

fn device() -> Option<&'static Cuda> {
    static ONE: OnceLock<Option<Cuda>> = OnceLock::new();
    ONE.get_or_init(|| match probe() {
        Ok(_) => Some(Cuda::open(0).unwrap()),
        Err(reason) => {
            eprintln!("SKIPPED: {reason}");
            None
        }
    })
    .as_ref()
}

/// The same values on both devices.
fn both(cuda: &Cuda, values: &[f64], shape: &[usize], dtype: DType) -> (CpuTensor, CudaTensor) {
    let buffer = Buffer::new(values, dtype, 0);
    (Cpu.upload(buffer.bits(), shape, dtype).unwrap(), cuda.upload(buffer.bits(), shape, dtype).unwrap())
}

fn on_cpu(tensor: &CpuTensor) -> Vec<f64> {
    Buffer::from_bytes(Cpu.read(tensor, <[u8]>::to_vec).unwrap(), tensor.dtype).values()
}

fn on_cuda(cuda: &Cuda, tensor: &CudaTensor) -> Vec<f64> {
    Buffer::from_bytes(cuda.download(tensor).unwrap(), tensor.dtype).values()
}

fn expect_alike(what: &str, cuda: &Cuda, cpu: &CpuTensor, gpu: &CudaTensor) {
    assert_eq!((&cpu.shape, cpu.dtype), (&gpu.shape, gpu.dtype), "{what}");
    // Both round once from arithmetic of the same precision, each in its own way.
    let result = compare_rounded(what, &on_cuda(cuda, gpu), &on_cpu(cpu), gpu.dtype, 1.0, 2.0);
    result.unwrap_or_else(|why| panic!("{why} ({:?})", gpu.dtype));
}

#[test]
fn fill_copy_and_sums_do_what_the_cpu_does_also_within_one_memory() {
    let Some(cuda) = device() else { return };
    for dtype in DType::ALL {
        let whole: Vec<f64> = (0..40 * 25).map(|i| f64::from(i % 200)).collect();
        let (cpu, gpu) = both(cuda, &whole, &[40, 25], dtype);
        // Rows 3 to 33 onto rows 1 to 31: what is read is overwritten.
        Cpu.copy(&cpu.rows(1, 30), &cpu.rows(3, 30)).unwrap();
        cuda.copy(&gpu.rows(1, 30), &gpu.rows(3, 30)).unwrap();
        Cpu.fill(&cpu.rows(39, 1), 7.9).unwrap();
        cuda.fill(&gpu.rows(39, 1), 7.9).unwrap();
        expect_alike("copy and fill", cuda, &cpu, &gpu);
        for to in DType::ALL {
            let (cpu_to, gpu_to) = (Cpu.empty(&[38, 25], to).unwrap(), cuda.empty(&[38, 25], to).unwrap());
            Cpu.copy(&cpu_to, &cpu.rows(1, 38)).unwrap();
            cuda.copy(&gpu_to, &gpu.rows(1, 38)).unwrap();
            assert_eq!(on_cuda(cuda, &gpu_to), on_cpu(&cpu_to), "{dtype:?} to {to:?}");
        }
        let sums = cuda.accumulate(&gpu.rows(0, 20), &gpu.rows(10, 20));
        if !dtype.is_float() {
            assert_eq!(sums.unwrap_err().code, ErrorCode::Dtype);
            assert_eq!(cuda.add(&gpu, &gpu).err().unwrap().code, ErrorCode::Dtype);
            continue;
        }
        Cpu.accumulate(&cpu.rows(0, 20), &cpu.rows(10, 20)).unwrap();
        Cpu.accumulate(&cpu, &cpu).unwrap();
        cuda.accumulate(&gpu, &gpu).unwrap();
        assert_eq!(on_cuda(cuda, &gpu), on_cpu(&cpu), "{dtype:?}");
        let sum = (Cpu.add(&cpu, &cpu).unwrap(), cuda.add(&gpu, &gpu).unwrap());
        assert_eq!(on_cuda(cuda, &sum.1), on_cpu(&sum.0), "{dtype:?}");
        assert!(cuda.copy(&gpu, &gpu.rows(0, 3)).is_err());
    }
}

#[test]
fn pooling_does_what_the_cpu_does() {
    let Some(cuda) = device() else { return };
    for (window, shape) in [
        (Window { kernel: [2, 2], stride: [2, 2], padding: [0, 0] }, [2, 3, 4, 8, 8]),
        (Window { kernel: [3, 2], stride: [1, 2], padding: [1, 0] }, [1, 5, 3, 7, 9]),
        (Window { kernel: [17, 17], stride: [2, 1], padding: [8, 8] }, [1, 1, 2, 18, 20]),
        (Window { kernel: [2, 2], stride: [2, 2], padding: [0, 0] }, [2, 0, 4, 8, 8]),
    ] {
        let spec = PoolSpec { window };
        let frames = spec.frames(&shape, StepMode::Multi).unwrap();
        for dtype in FLOATS {
            let (x, gx) = both(cuda, &normals(1, shape.iter().product(), dtype), &shape, dtype);
            let (y, gy) = (
                Cpu.avg_pool2d_forward(&spec, frames, &x).unwrap(),
                cuda.avg_pool2d_forward(&spec, frames, &gx).unwrap(),
            );
            expect_alike("average", cuda, &y, &gy);
            let saved = AvgPoolSaved { spec: spec.clone(), frames, input_shape: shape.to_vec(), dtype };
            let (dy, gdy) = both(cuda, &normals(2, y.len(), dtype), &y.shape, dtype);
            let dx = (
                Cpu.avg_pool2d_backward(&saved, &dy).unwrap(),
                cuda.avg_pool2d_backward(&saved, &gdy).unwrap(),
            );
            expect_alike("gradient of the average", cuda, &dx.0, &dx.1);
            let max = Cpu.max_pool2d_forward(&spec, frames, &x, true).unwrap();
            let gmax = cuda.max_pool2d_forward(&spec, frames, &gx, true).unwrap();
            expect_alike("maximum", cuda, &max.y, &gmax.y);
            let (saved, gsaved) = (max.saved.unwrap(), gmax.saved.unwrap());
            assert_eq!(
                cuda.download(&gsaved.indices).unwrap(),
                Cpu.read(&saved.indices, <[u8]>::to_vec).unwrap()
            );
            let dx = (
                Cpu.max_pool2d_backward(&saved, &dy).unwrap(),
                cuda.max_pool2d_backward(&gsaved, &gdy).unwrap(),
            );
            expect_alike("gradient of the maximum", cuda, &dx.0, &dx.1);
            assert!(cuda.max_pool2d_forward(&spec, frames, &gx, false).unwrap().saved.is_none());
        }
    }
}

#[test]
fn neurons_do_what_the_cpu_does_over_two_calls() {
    let Some(cuda) = device() else { return };
    let specs = [
        (Charge::Integrate, None, Surrogate::Atan { alpha: 2.0 }, false),
        (Charge::Leaky { tau: 2.0, decay_input: true }, Some(0.0), Surrogate::Sigmoid { alpha: 4.0 }, false),
        (Charge::Leaky { tau: 4.0, decay_input: false }, Some(-0.5), Surrogate::Atan { alpha: 2.0 }, true),
    ];
    for ((charge, v_reset, surrogate, detach_reset), shape) in
        specs.into_iter().zip([[4, 2, 50], [3, 5, 7], [2, 0, 9]])
    {
        let spec = NeuronSpec { charge, v_threshold: 1.0, v_reset, surrogate, detach_reset };
        let grid = spec.grid(&shape, StepMode::Multi, None).unwrap();
        for dtype in FLOATS {
            let mut random = Random::new(5);
            // Eighths: every voltage is exact, and the spikes are the same.
            let draw: Vec<f64> = (0..2 * shape.iter().product::<usize>())
                .map(|_| random.below(17) as f64 / 8.0 - 0.5)
                .collect();
            // Two calls' inputs in one memory: the second starts at an odd place.
            let (x, gx) = both(cuda, &draw, &[2 * shape[0], shape[1], shape[2]], dtype);
            let (mut state, mut gstate): (Option<CpuTensor>, Option<CudaTensor>) = (None, None);
            let (mut tape, mut gtape) = (Vec::new(), Vec::new());
            for call in 0..2 {
                let (x, gx) = (x.rows(call * shape[0], shape[0]), gx.rows(call * shape[0], shape[0]));
                let state_shape = &shape[1..];
                let output = Cpu
                    .neuron_forward(&NeuronForward {
                        spec: &spec,
                        grid,
                        x: &x,
                        state: state.as_ref(),
                        state_shape,
                        record: true,
                    })
                    .unwrap();
                let goutput = cuda
                    .neuron_forward(&NeuronForward {
                        spec: &spec,
                        grid,
                        x: &gx,
                        state: gstate.as_ref(),
                        state_shape,
                        record: true,
                    })
                    .unwrap();
                assert_eq!(on_cuda(cuda, &goutput.spikes), on_cpu(&output.spikes), "{spec:?} {dtype:?}");
                expect_alike("state", cuda, &output.state, &goutput.state);
                (state, gstate) = (Some(output.state), Some(goutput.state));
                tape.push(output.saved.unwrap());
                gtape.push(goutput.saved.unwrap());
            }
            let (mut carry, mut gcarry): (Option<CpuTensor>, Option<CudaTensor>) = (None, None);
            for (saved, gsaved) in tape.iter().zip(&gtape).rev() {
                let (dy, gdy) = both(cuda, &normals(3, shape.iter().product(), dtype), &shape, dtype);
                let grads = Cpu.neuron_backward(saved, &dy, carry.as_ref()).unwrap();
                let ggrads = cuda.neuron_backward(gsaved, &gdy, gcarry.as_ref()).unwrap();
                expect_alike("dx", cuda, &grads.dx, &ggrads.dx);
                expect_alike("gradient of the state", cuda, &grads.state, &ggrads.state);
                (carry, gcarry) = (Some(grads.state), Some(ggrads.state));
            }
        }
    }
}

#[test]
fn cross_entropy_does_what_the_cpu_does_and_reports_bad_labels() {
    let Some(cuda) = device() else { return };
    for (shape, labels) in [(&[7, 10][..], DType::I64), (&[4, 300, 3][..], DType::U8)] {
        let n = shape[shape.len() - 2];
        let grid = LogitsGrid::of(shape, &[n]).unwrap();
        for dtype in FLOATS {
            let (logits, glogits) = both(cuda, &normals(1, shape.iter().product(), dtype), shape, dtype);
            let mut classes: Vec<f64> = (0..n).map(|sample| (sample % grid.k) as f64).collect();
            let (cpu_labels, gpu_labels) = both(cuda, &classes, &[n], labels);
            let output = Cpu.cross_entropy(grid, &logits, &cpu_labels).unwrap();
            let goutput = cuda.cross_entropy(grid, &glogits, &gpu_labels).unwrap();
            expect_alike("report", cuda, &output.report, &goutput.report);
            expect_alike("grad", cuda, &output.grad, &goutput.grad);
            classes[n - 2] = 200.0;
            let (_, bad) = both(cuda, &classes, &[n], labels);
            let report = on_cuda(cuda, &cuda.cross_entropy(grid, &glogits, &bad).unwrap().report);
            assert_eq!(report[1], (n - 2) as f64);
        }
    }
    let logits = cuda.empty(&[2, 3], DType::F32).unwrap();
    let grid = LogitsGrid::of(&[2, 3], &[2]).unwrap();
    assert_eq!(cuda.cross_entropy(grid, &logits, &logits).err().unwrap().code, ErrorCode::Dtype);
}

#[test]
fn optimizers_do_what_the_cpu_does_and_count_on_the_device() {
    let Some(cuda) = device() else { return };
    for dtype in [DType::F32, DType::F64] {
        for count in [1, 1003] {
            let shape = [count];
            let (p, gp) = both(cuda, &normals(1, count, dtype), &shape, dtype);
            let (m, gm) = both(cuda, &vec![0.0; count], &shape, dtype);
            let (v, gv) = both(cuda, &vec![0.0; count], &shape, dtype);
            let (b, gb) = both(cuda, &vec![f64::NAN; count], &shape, dtype);
            let (step, gstep) = both(cuda, &[0.0], &[], DType::I64);
            for turn in 0..3 {
                let (grad, ggrad) = both(cuda, &normals(2 + turn, count, dtype), &shape, dtype);
                let spec =
                    AdamSpec { lr: 0.01, betas: [0.9, 0.999], eps: 1e-3, weight_decay: 0.1, decoupled: true };
                Cpu.adam_step(&AdamStep {
                    spec,
                    parameter: &p,
                    grad: &grad,
                    first_moment: &m,
                    second_moment: &v,
                    step: &step,
                })
                .unwrap();
                cuda.adam_step(&AdamStep {
                    spec,
                    parameter: &gp,
                    grad: &ggrad,
                    first_moment: &gm,
                    second_moment: &gv,
                    step: &gstep,
                })
                .unwrap();
                let spec =
                    SgdSpec { lr: 0.1, momentum: 0.9, dampening: 0.0, weight_decay: 0.01, nesterov: true };
                let first = turn == 0;
                Cpu.sgd_step(&SgdStep { spec, parameter: &p, grad: &grad, momentum: Some(&b), first })
                    .unwrap();
                cuda.sgd_step(&SgdStep { spec, parameter: &gp, grad: &ggrad, momentum: Some(&gb), first })
                    .unwrap();
            }
            for (what, cpu, gpu) in
                [("parameter", &p, &gp), ("exp_avg", &m, &gm), ("exp_avg_sq", &v, &gv), ("momentum", &b, &gb)]
            {
                expect_alike(what, cuda, cpu, gpu);
            }
            assert_eq!((on_cuda(cuda, &gstep), on_cpu(&step)), (vec![3.0], vec![3.0]));
            let spec = SgdSpec { lr: 0.1, momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false };
            let call = SgdStep { spec, parameter: &gp, grad: &gstep, momentum: None, first: true };
            assert!(cuda.sgd_step(&call).is_err());
        }
    }
}
