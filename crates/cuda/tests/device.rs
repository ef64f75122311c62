//! The same claims on a GPU, where there is one; elsewhere these tests say why they skip.

#![allow(clippy::unwrap_used)]

#[path = "emulation/support/mod.rs"]
mod support;

use std::sync::OnceLock;

use spikenorm_core::norm::{CudaPass, CudaPlan, Layout, NormForward, Rows, RunningUpdate, Statistics};
use spikenorm_core::{DType, ErrorCode, Grid, NeuNormForward, NeuNormSpec, Tensor};
use spikenorm_cuda::driver::{Cuda, DeviceMemory, probe};
use support::buffer::{Buffer, rounded};
use support::case::{Case, Data, Random, Variant, grid};
use support::norm::NormCase;
use support::reference::{NeuNormInputs, neu_norm};
use support::tolerance::compare;

const DTYPES: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

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

/// The same claims on shapes that a host can run, or a GPU under a tool that looks at every access.
fn wants_small(cuda: &Cuda) -> bool {
    cuda.name().unwrap().contains("emulated") || std::env::var_os("SPIKENORM_SMALL").is_some()
}

fn upload(cuda: &Cuda, values: &[f64], shape: &[usize], dtype: DType) -> Tensor<DeviceMemory> {
    cuda.upload(Buffer::new(values, dtype, 0).bits(), shape, dtype).unwrap()
}

fn download(cuda: &Cuda, tensor: &Tensor<DeviceMemory>) -> Vec<f64> {
    Buffer::from_bytes(cuda.download(tensor).unwrap(), tensor.dtype).values()
}

#[test]
fn without_a_usable_device_opening_one_fails_with_a_reason_and_does_not_panic() {
    if let Err(reason) = probe() {
        assert_eq!(reason.code, ErrorCode::CudaUnavailable);
        let error = Cuda::open(0).err().expect("no device to open");
        assert_eq!(error.code, ErrorCode::CudaUnavailable);
        assert!(error.message.len() > "CUDA: ".len(), "{}", error.message);
    } else {
        let error = Cuda::open(1000).err().expect("no such device");
        assert_eq!(error.code, ErrorCode::Device);
    }
}

/// A forward and a backward under running and under batch statistics, or under the latter by the plans given.
fn check_norm(
    cuda: &Cuda,
    case: &Case,
    norm: &NormCase,
    plans: Option<[&CudaPlan; 2]>,
) -> Result<Vec<u8>, String> {
    let (p, Grid { t, n, c, s }) = (case.dtype.parameter(), case.grid);
    let shape = [t, n, c, s];
    let x = upload(cuda, &norm.inputs.x, &shape, case.dtype);
    let dy = upload(cuda, &norm.inputs.dy, &shape, case.dtype);
    let small = |values: &Option<Vec<f64>>, rows: Rows| {
        values.as_ref().map(|values| upload(cuda, values, &[rows.count(t), c], p))
    };
    let weight = small(&norm.inputs.weight, norm.spec.weight);
    let bias = small(&norm.inputs.bias, norm.spec.bias);
    let scale = norm.inputs.scale.as_ref().map(|values| upload(cuda, values, &[t], p));
    let running_shape = [norm.spec.statistics.count(t), c];
    let mean = upload(cuda, &norm.inputs.running_mean, &running_shape, p);
    let var = upload(cuda, &norm.inputs.running_var, &running_shape, p);
    let mut bits = Vec::new();
    for frozen in if plans.is_some() { vec![false] } else { vec![true, false] } {
        let expected = if frozen { &norm.frozen } else { &norm.expected };
        let counts = bytemuck::cast_slice(&norm.inputs.counters);
        let counters = cuda.upload(counts, &[norm.inputs.counters.len()], DType::I64).unwrap();
        let update =
            RunningUpdate { mean: &mean, var: &var, counters: &counters, momentum: norm.inputs.momentum };
        let call = NormForward {
            spec: &norm.spec,
            grid: case.grid,
            x: &x,
            weight: weight.as_ref(),
            bias: bias.as_ref(),
            scale: scale.as_ref(),
            statistics: if frozen {
                Statistics::Running { mean: &mean, var: &var }
            } else {
                Statistics::Batch(Some(update))
            },
            record: true,
        };
        let (output, grads) = match plans {
            Some([forward, backward]) => {
                let output = cuda.norm_forward_by(&call, forward).unwrap();
                let grads = cuda.norm_backward_by(output.saved.as_ref().unwrap(), &dy, backward).unwrap();
                (output, grads)
            }
            None => {
                let output = cuda.norm_forward(&call).unwrap();
                let grads = cuda.norm_backward(output.saved.as_ref().unwrap(), &dy).unwrap();
                (output, grads)
            }
        };
        compare("y", &download(cuda, &output.y), &expected.y, case.dtype, 0.0)?;
        compare("running_mean", &download(cuda, &mean), &expected.running_mean, p, 0.0)?;
        compare("running_var", &download(cuda, &var), &expected.running_var, p, 0.0)?;
        compare("dx", &download(cuda, &grads.dx), &expected.dx, case.dtype, 0.0)?;
        let largest = norm.inputs.dy.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        for (grad, expected, name) in [
            (&grads.weight, &expected.weight, "dweight"),
            (&grads.bias, &expected.bias, "dbias"),
            (&grads.scale, &expected.scale, "dscale"),
        ] {
            let got = grad.as_ref().map(|grad| download(cuda, grad)).unwrap_or_default();
            compare(name, &got, expected, p, largest)?;
        }
        bits.extend(cuda.download(&output.y).unwrap());
        bits.extend(cuda.download(&grads.dx).unwrap());
    }
    Ok(bits)
}

#[test]
fn every_variant_and_dtype_matches_the_reference_with_the_same_bits_twice() {
    let Some(cuda) = device() else { return };
    let shapes = [
        grid(4, 8, 16, 196),
        grid(2, 32, 33, 49),
        grid(3, 64, 128, 1),
        grid(1, 5, 3, 3136),
        grid(4, 16, 1, 5000),
        grid(2, 2, 1, 1 << 20),
        grid(1, 1024, 1, 7),
    ];
    // One by cluster, one cooperative, one with many channels and one block each.
    let small = [grid(2, 8, 2, 49), grid(1, 40, 1, 7), grid(2, 4, 12, 1)];
    let shapes = if wants_small(cuda) { &small[..] } else { &shapes[..] };
    let mut seed = 0;
    for &shape in shapes {
        for variant in Variant::ALL {
            for dtype in DTYPES {
                seed += 1;
                let case = Case {
                    variant,
                    grid: shape,
                    layout: Layout::Contiguous,
                    dtype,
                    offset: 0,
                    data: Data::Plain,
                };
                let norm = NormCase::new(&case, seed);
                let first =
                    check_norm(cuda, &case, &norm, None).unwrap_or_else(|why| panic!("{why}\n{case:?}"));
                let again =
                    check_norm(cuda, &case, &norm, None).unwrap_or_else(|why| panic!("{why}\n{case:?}"));
                assert!(first == again, "other bits the second time: {case:?}");
            }
        }
    }
}

#[test]
fn every_plan_that_is_considered_gives_the_values_of_the_reference() {
    let Some(cuda) = device() else { return };
    let shapes = [
        (Variant::TemporalEffective, grid(4, 32, 64, 196), DType::F32),
        (Variant::TemporalEffective, grid(4, 32, 24, 49), DType::F16),
        (Variant::ThroughTime, grid(3, 300, 130, 1), DType::F32),
        (Variant::ThresholdDependent, grid(2, 6, 3, 6400), DType::BF16),
        (Variant::ThroughTime, grid(10, 16, 8, 256), DType::F64),
    ];
    let small = [(Variant::TemporalEffective, grid(2, 6, 5, 36), DType::F32)];
    for &(variant, shape, dtype) in if wants_small(cuda) { &small[..] } else { &shapes[..] } {
        let case =
            Case { variant, grid: shape, layout: Layout::Contiguous, dtype, offset: 0, data: Data::Plain };
        let norm = NormCase::new(&case, 7);
        let all = |pass| CudaPlan::all(pass, shape, Layout::Contiguous, dtype, 16, cuda.limits()).unwrap();
        let (forward, backward) = (all(CudaPass::Forward), all(CudaPass::Backward));
        let count = forward.len().max(backward.len());
        assert!(count > 20, "{count} plans");
        for index in 0..count {
            let plans = [&forward[index % forward.len()], &backward[index % backward.len()]];
            let result = check_norm(cuda, &case, &norm, Some(plans));
            result.unwrap_or_else(|why| panic!("{why}\n{case:?}\n{plans:#?}"));
        }
    }
}

#[test]
fn neu_norm_matches_the_recurrence() {
    let Some(cuda) = device() else { return };
    for (shape, shared) in
        [(grid(4, 16, 64, 196), false), (grid(3, 5, 300, 49), true), (grid(2, 3, 2100, 4), false)]
    {
        for dtype in DTYPES {
            let (p, Grid { t, n, c, s }) = (dtype.parameter(), shape);
            let mut random = Random::new(s as u64);
            let rows = if shared { 1 } else { c };
            let spikes: Vec<f64> =
                (0..shape.len()).map(|_| f64::from(u8::from(random.unit() < 0.3))).collect();
            let inputs = NeuNormInputs {
                x: spikes,
                dy: rounded(&random.normals(shape.len(), 0.05, 1.0), dtype),
                weight: rounded(&random.normals(rows * s, 0.0, 0.2), p),
                state: None,
                carry: None,
            };
            let spec =
                NeuNormSpec { channels: c, height: 1, width: s, layout: Layout::Contiguous, k: 0.9, shared };
            let expected = neu_norm(0.9, shared, shape, &inputs);
            let x = upload(cuda, &inputs.x, &[t, n, c, 1, s], dtype);
            let dy = upload(cuda, &inputs.dy, &[t, n, c, 1, s], dtype);
            let weight = upload(cuda, &inputs.weight, &[rows, 1, s], p);
            let call = NeuNormForward {
                spec: &spec,
                grid: shape,
                x: &x,
                weight: &weight,
                state: None,
                record: true,
            };
            let output = cuda.neu_norm_forward(&call).unwrap();
            let grads = cuda.neu_norm_backward(&output.saved.unwrap(), &dy, None).unwrap();
            let largest = inputs.dy.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            for (what, tensor, expected, floor) in [
                ("y", &output.y, &expected.y, 0.0),
                ("dx", &grads.dx, &expected.dx, 0.0),
                ("dw", &grads.weight, &expected.weight, largest),
                ("dstate", &grads.state, &expected.state, 0.0),
            ] {
                let result = compare(what, &download(cuda, tensor), expected, tensor.dtype, floor);
                result.unwrap_or_else(|why| panic!("{why}\n{shape:?} {dtype:?}"));
            }
        }
    }
}
