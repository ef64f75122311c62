//! The tiny way beside the general one, on every specification and dtype.

use proptest::prelude::*;
use spikenorm_core::Backend;
use spikenorm_core::norm::{Layout, NormSpec, Rows, RunningUpdate};

use super::*;
use crate::backend::Cpu;
use crate::element::with_float;
use crate::norm::{backward as general_backward, forward as general_forward};
use crate::tensor_ops::{read_f64, write_f64};

/// Everything a step of training or evaluation gives, in the order of the names below.
type Outcome = Vec<(&'static str, Vec<f64>)>;

fn noise(seed: u64, count: usize, centre: f64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            centre + (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        })
        .collect()
}

fn tensor(values: &[f64], shape: &[usize], dtype: DType) -> CpuTensor {
    let tensor = Cpu.allocate(shape, dtype).expect("allocates");
    write_f64(&tensor, values).expect("writes");
    tensor
}

struct Case {
    grid: Grid,
    dtype: DType,
    affine: [bool; 3],
    running: bool,
    momentum: Option<f64>,
    seed: u64,
}

/// The case here (`tiny`) or as tensors of any size go.
fn run(case: &Case, tiny: bool) -> Outcome {
    let Case { grid, dtype, affine: [weight, bias, scale], running, momentum, seed } = *case;
    let (c, narrow) = (grid.c, dtype.parameter());
    let small = |seed: u64, centre: f64| tensor(&noise(seed, c, centre), &[1, c], narrow);
    let rows = |present: bool| if present { Rows::Shared } else { Rows::Absent };
    let spec = NormSpec {
        layout: Layout::Contiguous,
        spatial: 2,
        channels: c,
        steps: None,
        statistics: Rows::Shared,
        weight: rows(weight),
        bias: rows(bias),
        time_scale: scale,
        eps: 1e-3,
    };
    let shape = [1, grid.n, c, grid.s];
    let x = tensor(&noise(seed, grid.len(), 5.0), &shape, dtype);
    let dy = tensor(&noise(seed + 1, grid.len(), 0.3), &shape, dtype);
    let (mean, var) = (small(seed + 2, 4.0), small(seed + 3, 1.5));
    let weight = weight.then(|| small(seed + 4, 1.2));
    let bias = bias.then(|| small(seed + 5, 0.1));
    let scale = scale.then(|| tensor(&[1.7], &[1], narrow));
    let counters = Cpu.upload(bytemuck::cast_slice(&[3i64]), &[1], DType::I64).expect("fits");
    let update = RunningUpdate { mean: &mean, var: &var, counters: &counters, momentum };
    let call = NormForward {
        spec: &spec,
        grid,
        x: &x,
        weight: weight.as_ref(),
        bias: bias.as_ref(),
        scale: scale.as_ref(),
        statistics: if running {
            Statistics::Running { mean: &mean, var: &var }
        } else {
            Statistics::Batch(Some(update))
        },
        record: true,
    };
    let passes = || -> Result<(CpuTensor, NormGrads<HostMemory>)> {
        with_float!(dtype, E => {
            let output = if tiny { forward::<E>(&call) } else { general_forward::<E>(&call) }?;
            let saved = output.saved.as_ref().expect("recorded");
            // An optimiser may step in between: backward must not read the parameters themselves.
            for parameter in [&weight, &bias, &scale].into_iter().flatten() {
                crate::tensor_ops::fill(parameter, 99.0)?;
            }
            let grads = if tiny { backward::<E>(saved, &dy) } else { general_backward::<E>(saved, &dy) };
            Ok((output.y, grads?))
        })
    };
    let (output, grads) = passes().expect("the passes succeed");
    let values = |tensor: &CpuTensor| read_f64(tensor).expect("reads");
    let given = |tensor: &Option<CpuTensor>| tensor.as_ref().map_or(Vec::new(), values);
    vec![
        ("y", values(&output)),
        ("dx", values(&grads.dx)),
        ("running_mean", values(&mean)),
        ("running_var", values(&var)),
        ("counters", values(&counters)),
        ("dweight", given(&grads.weight)),
        ("dbias", given(&grads.bias)),
        ("dscale", given(&grads.scale)),
    ]
}

proptest! {
    #[test]
    fn one_step_is_what_the_passes_for_any_size_make_of_it(
        n in 1usize..5, c in 1usize..9,
        s in prop_oneof![Just(8usize), Just(15), Just(16), Just(31), Just(49)],
        affine: [bool; 3],
        running: bool,
        cumulative: bool,
        dtype in prop_oneof![Just(DType::F64), Just(DType::F32), Just(DType::F16), Just(DType::BF16)],
        seed in 1u64..1000,
    ) {
        let momentum = (!cumulative).then_some(0.3);
        let case = Case { grid: Grid { t: 1, n, c, s }, dtype, affine, running, momentum, seed };
        // Halves may round to the neighbour where float32 differs in the last place.
        let tolerance = match dtype {
            DType::F64 => 1e-12,
            DType::F32 => 2e-6,
            DType::F16 => 1.0 / 512.0,
            _ => 1.0 / 64.0,
        };
        for ((what, got), (_, expected)) in run(&case, true).into_iter().zip(run(&case, false)) {
            prop_assert_eq!(got.len(), expected.len(), "{}", what);
            for (got, expected) in got.iter().zip(&expected) {
                // Values are of the size of 1 to 50; gradients cancel.
                let error = (got - expected).abs() / expected.abs().max(1.0);
                prop_assert!(error <= tolerance, "{what}: expected {expected:e}, got {got:e}");
            }
        }
    }
}

#[test]
fn nan_stays_in_its_channel() {
    let grid = Grid { t: 1, n: 2, c: 3, s: 16 };
    let spec = NormSpec {
        layout: Layout::Contiguous,
        spatial: 2,
        channels: 3,
        steps: None,
        statistics: Rows::Shared,
        weight: Rows::Absent,
        bias: Rows::Absent,
        time_scale: false,
        eps: 1e-3,
    };
    let mut values = noise(1, grid.len(), 0.0);
    values[16 + 5] = f64::NAN;
    let call = NormForward {
        spec: &spec,
        grid,
        x: &tensor(&values, &[2, 3, 16], DType::F32),
        weight: None,
        bias: None,
        scale: None,
        statistics: Statistics::Batch(None),
        record: false,
    };
    let output = forward::<f32>(&call).expect("runs");
    assert!(output.saved.is_none());
    for (i, y) in read_f64(&output.y).expect("reads").into_iter().enumerate() {
        assert_eq!(y.is_nan(), i / 16 % 3 == 1, "{i}: {y}");
    }
}
