//! Every specification, dtype and plan against a naive float64 reference written from the formulas.

use proptest::prelude::*;
use spikenorm_core::norm::{CpuPlan, Layout, NormForward, NormSpec, Rows, RunningUpdate, Statistics};
use spikenorm_core::{Backend, DType, Grid};

use super::backward::backward_planned;
use super::forward::forward_planned;
use crate::backend::{Cpu, CpuTensor};
use crate::element::with_fast_float;
use crate::tensor_ops::{read_f64, write_f64};
use crate::through_float32::is_slow;

/// Largest error relative to the largest reference value: float32 rounds results of this size to 6e-8 and a
/// reduction adds a few of that; float16 and bfloat16 are rounded once (2^-11, 2^-8), with some room.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-12,
        DType::F32 => 1e-6,
        DType::F16 => 1.0 / 1024.0,
        _ => 1.0 / 128.0,
    }
}

struct Case {
    spec: NormSpec,
    grid: Grid,
    running: bool,
    x: Vec<f64>,
    dy: Vec<f64>,
    weight: Option<Vec<f64>>,
    bias: Option<Vec<f64>>,
    scale: Option<Vec<f64>>,
    mean: Vec<f64>,
    var: Vec<f64>,
}

#[derive(Default)]
struct Reference {
    y: Vec<f64>,
    dx: Vec<f64>,
    weight: Vec<f64>,
    bias: Vec<f64>,
    scale: Vec<f64>,
    mean: Vec<f64>,
    var: Vec<f64>,
}

/// Cheap reproducible numbers in (−1, 1).
fn noise(seed: u64, count: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn tensor(values: &[f64], shape: &[usize], dtype: DType) -> CpuTensor {
    let tensor = Cpu.allocate(shape, dtype).expect("allocates");
    write_f64(&tensor, values).expect("writes");
    tensor
}

/// `values` as this dtype holds them.
fn rounded(values: &[f64], dtype: DType) -> Vec<f64> {
    read_f64(&tensor(values, &[values.len()], dtype)).expect("reads")
}

impl Case {
    fn at(&self, t: usize, n: usize, c: usize, s: usize) -> usize {
        ((t * self.grid.n + n) * self.grid.c + c) * self.grid.s + s
    }

    /// Loops over everything, in float64, straight from the formulas.
    fn reference(&self) -> Reference {
        let Grid { t: steps, n: samples, c: channels, s: space } = self.grid;
        let spec = &self.spec;
        let rows = spec.statistics.count(steps);
        let mut out = Reference {
            y: vec![0.0; self.grid.len()],
            dx: vec![0.0; self.grid.len()],
            weight: vec![0.0; spec.weight.count(steps) * channels],
            bias: vec![0.0; spec.bias.count(steps) * channels],
            scale: vec![0.0; if spec.time_scale { steps } else { 0 }],
            mean: self.mean.clone(),
            var: self.var.clone(),
        };
        for c in 0..channels {
            for row in 0..rows {
                let of_row: Vec<usize> = (0..steps).filter(|&t| spec.statistics.of(t) == row).collect();
                let mut all = Vec::new();
                for &t in &of_row {
                    for n in 0..samples {
                        all.extend((0..space).map(|s| (t, self.at(t, n, c, s))));
                    }
                }
                let count = all.len() as f64;
                let index = row * channels + c;
                let (mut mean, mut var) = (self.mean[index], self.var[index]);
                if !self.running {
                    mean = all.iter().map(|&(_, i)| self.x[i]).sum::<f64>() / count;
                    var = all.iter().map(|&(_, i)| (self.x[i] - mean).powi(2)).sum::<f64>() / count;
                    out.mean[index] = 0.7 * out.mean[index] + 0.3 * mean;
                    out.var[index] = 0.7 * out.var[index] + 0.3 * var * count / (count - 1.0);
                }
                let rstd = 1.0 / (var + spec.eps).sqrt();
                let w = |t: usize| self.weight.as_ref().map_or(1.0, |w| w[spec.weight.of(t) * channels + c]);
                let b = |t: usize| self.bias.as_ref().map_or(0.0, |b| b[spec.bias.of(t) * channels + c]);
                let p = |t: usize| self.scale.as_ref().map_or(1.0, |p| p[t]);
                let (mut k1, mut k2) = (0.0, 0.0);
                for &(t, i) in &all {
                    let x_hat = (self.x[i] - mean) * rstd;
                    out.y[i] = p(t) * (w(t) * x_hat + b(t));
                    k1 += p(t) * w(t) * self.dy[i] / count;
                    k2 += p(t) * w(t) * self.dy[i] * x_hat / count;
                    if let Some(total) = out.weight.get_mut(spec.weight.of(t) * channels + c) {
                        *total += p(t) * self.dy[i] * x_hat;
                    }
                    if let Some(total) = out.bias.get_mut(spec.bias.of(t) * channels + c) {
                        *total += p(t) * self.dy[i];
                    }
                    if let Some(total) = out.scale.get_mut(t) {
                        *total += self.dy[i] * (w(t) * x_hat + b(t));
                    }
                }
                for &(t, i) in &all {
                    let x_hat = (self.x[i] - mean) * rstd;
                    let (k1, k2) = if self.running { (0.0, 0.0) } else { (k1, k2) };
                    out.dx[i] = rstd * (p(t) * w(t) * self.dy[i] - k1 - x_hat * k2);
                }
            }
        }
        out
    }

    /// The same through the backend's code, with a plan.
    fn run(&self, dtype: DType, plan: CpuPlan) -> Reference {
        let Grid { t, n, c, s } = self.grid;
        let rows = self.spec.statistics.count(t);
        let small = dtype.parameter();
        let optional = |values: &Option<Vec<f64>>| {
            values.as_ref().map(|values| tensor(values, &[values.len() / c, c], small))
        };
        let (weight, bias) = (optional(&self.weight), optional(&self.bias));
        let scale = self.scale.as_ref().map(|scale| tensor(scale, &[t], small));
        let (mean, var) = (tensor(&self.mean, &[rows, c], small), tensor(&self.var, &[rows, c], small));
        let x = tensor(&self.x, &[t, n, c, s], dtype);
        let dy = tensor(&self.dy, &[t, n, c, s], dtype);
        let counters =
            Cpu.upload(bytemuck::cast_slice(&vec![7i64; rows]), &[rows], DType::I64).expect("fits");
        let statistics = if self.running {
            Statistics::Running { mean: &mean, var: &var }
        } else {
            Statistics::Batch(Some(RunningUpdate {
                mean: &mean,
                var: &var,
                counters: &counters,
                momentum: Some(0.3),
            }))
        };
        let call = NormForward {
            spec: &self.spec,
            grid: self.grid,
            x: &x,
            weight: weight.as_ref(),
            bias: bias.as_ref(),
            scale: scale.as_ref(),
            statistics,
            record: true,
        };
        let run = || -> spikenorm_core::Result<Reference> {
            with_fast_float!(dtype, E => {
                let forward = forward_planned::<E>(&call, plan)?;
                let saved = forward.saved.expect("recorded");
                let grads = backward_planned::<E>(&saved, &dy, plan)?;
                let values = |t: Option<CpuTensor>| t.map_or(Ok(Vec::new()), |t| read_f64(&t));
                Ok(Reference {
                    y: read_f64(&forward.y)?,
                    dx: read_f64(&grads.dx)?,
                    weight: values(grads.weight)?,
                    bias: values(grads.bias)?,
                    scale: values(grads.scale)?,
                    mean: read_f64(&mean)?,
                    var: read_f64(&var)?,
                })
            })
        };
        run().expect("the passes succeed")
    }
}

/// Compares within `tolerance` of the largest of the expected values and `floor`.
fn expect_close(what: &str, got: &[f64], expected: &[f64], tolerance: f64, floor: f64) {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    let largest = expected.iter().fold(floor, |m, v| m.max(v.abs()));
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (got - expected).abs() / largest;
        assert!(
            error <= tolerance,
            "{what}[{i}]: expected {expected:e}, got {got:e}, off by {error:e} of {largest:e}"
        );
    }
}

fn specs() -> impl Strategy<Value = (Rows, Rows, Rows, bool)> {
    let rows = || prop_oneof![Just(Rows::Absent), Just(Rows::Shared), Just(Rows::PerStep)];
    (prop_oneof![Just(Rows::Shared), Just(Rows::PerStep)], rows(), rows(), any::<bool>())
}

fn case(
    (statistics, weight, bias, time_scale): (Rows, Rows, Rows, bool),
    grid: Grid,
    running: bool,
    dtype: DType,
    seed: u64,
) -> Case {
    let small = |seed: u64, count: usize, centre: f64| -> Vec<f64> {
        rounded(&noise(seed, count).iter().map(|v| centre + 0.5 * v).collect::<Vec<_>>(), dtype.parameter())
    };
    let rows = statistics.count(grid.t) * grid.c;
    let given = |rows: Rows| rows.is_present().then(|| rows.count(grid.t) * grid.c);
    Case {
        spec: NormSpec {
            spatial: 2,
            channels: grid.c,
            layout: Layout::Contiguous,
            steps: None,
            statistics,
            weight,
            bias,
            time_scale,
            eps: 1e-3,
        },
        grid,
        running,
        x: rounded(&noise(seed, grid.len()).iter().map(|v| 3.0 * v + 1.0).collect::<Vec<_>>(), dtype),
        dy: rounded(&noise(seed + 1, grid.len()), dtype),
        weight: given(weight).map(|count| small(seed + 2, count, 1.0)),
        bias: given(bias).map(|count| small(seed + 3, count, 0.2)),
        scale: time_scale.then(|| small(seed + 4, grid.t, 1.0)),
        mean: small(seed + 5, rows, 0.1),
        var: small(seed + 6, rows, 1.5),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn every_specification_dtype_and_plan_agrees_with_the_float64_reference(
        spec in specs(),
        t in 1usize..4, n in 1usize..7, c in 1usize..7,
        s in prop_oneof![Just(1usize), Just(3), Just(16), Just(47), Just(48), Just(49), Just(1030)],
        running: bool,
        dtype in prop_oneof![Just(DType::F64), Just(DType::F32), Just(DType::F16), Just(DType::BF16)],
        size in 1usize..7,
        seed in 1u64..1000,
    ) {
        let grid = Grid { t, n, c, s };
        prop_assume!(!is_slow(dtype));
        // One value per row has no variance; two hardly: their gradient cancels to nothing.
        prop_assume!(grid.cell() > 2);
        let case = case(spec, grid, running, dtype, seed);
        let expected = case.reference();
        // Means and gradients may cancel to nothing: they are held to the size of what they sum.
        let largest_x = case.x.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let largest_dy = case.dy.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        // A sum of so many terms of either sign is about this large, and may be much smaller.
        let sum_of_dy = largest_dy * (grid.len() as f64).sqrt();
        let steps = if case.spec.statistics == Rows::PerStep { 1 + seed as usize % t } else { t };
        let (per_tile, rows) = (size.min(c), (1 + seed as usize % 3).min(n));
        for plan in [
            CpuPlan::Channels { per_tile, steps },
            CpuPlan::Together { steps, rows },
            CpuPlan::Blocks { rows: size.min(n) },
        ] {
            let got = case.run(dtype, plan);
            let (wide, narrow) = (tolerance(dtype), tolerance(dtype.parameter()));
            expect_close("y", &got.y, &expected.y, wide, 0.0);
            expect_close("dx", &got.dx, &expected.dx, wide, largest_dy);
            expect_close("running_mean", &got.mean, &expected.mean, narrow, largest_x);
            expect_close("running_var", &got.var, &expected.var, narrow, 0.0);
            expect_close("dweight", &got.weight, &expected.weight, narrow, sum_of_dy);
            expect_close("dbias", &got.bias, &expected.bias, narrow, sum_of_dy);
            expect_close("dscale", &got.scale, &expected.scale, narrow, sum_of_dy);
        }
    }
}

/// What is left of the sum of x̂ is what the mean is off by, as many times as there are values.
#[test]
fn a_gradient_that_is_the_same_everywhere_is_none_of_the_weight() {
    for dtype in [DType::F32, DType::F16, DType::BF16].into_iter().filter(|&dtype| !is_slow(dtype)) {
        for (n, s) in [(8, 16), (64, 1), (16, 256), (9, 1030), (5, 5000)] {
            for statistics in [Rows::Shared, Rows::PerStep] {
                same_everywhere(dtype, Grid { t: 4, n, c: 4, s }, statistics);
            }
        }
    }
}

fn same_everywhere(dtype: DType, grid: Grid, statistics: Rows) {
    let mut case = case((statistics, Rows::Shared, Rows::Shared, false), grid, false, dtype, 3);
    // A product of it and a value fills all digits.
    case.dy.fill(rounded(&[0.7], dtype)[0]);
    for plan in [
        CpuPlan::Channels { per_tile: 3, steps: 1 },
        CpuPlan::Channels { per_tile: 4, steps: 4 },
        CpuPlan::Together { steps: 4, rows: 3 },
        CpuPlan::Blocks { rows: 3 },
    ] {
        if matches!(plan, CpuPlan::Channels { steps: 1, .. }) && statistics == Rows::Shared {
            continue;
        }
        // The gate of the golden cases: 1e-6 of the largest gradient.
        for value in case.run(dtype, plan).weight {
            assert!(value.abs() <= 0.7e-6, "{value:e} for {dtype:?}, {grid:?} in {plan:?}");
        }
    }
}

/// Where products of half types do not do: a mean far off, and values whose products are beyond float32.
#[test]
fn sums_of_half_types_are_as_good_as_those_of_float32() {
    let spec = (Rows::Shared, Rows::Shared, Rows::Shared, false);
    for dtype in [DType::F16, DType::BF16].into_iter().filter(|&dtype| !is_slow(dtype)) {
        let far = if dtype == DType::F16 { (200.0, 1.0, 1.0) } else { (30.0, 1.0, 1.0) };
        let large = if dtype == DType::F16 { (0.0, 1e4, 1e4) } else { (0.0, 1e17, 1e23) };
        for (offset, size, dy_size) in [far, large] {
            for (n, s) in [(40, 1), (9, 48), (6, 1030)] {
                let mut case = case(spec, Grid { t: 2, n, c: 3, s }, false, dtype, 4);
                let scaled = |values: &[f64], offset: f64, size: f64| -> Vec<f64> {
                    rounded(&values.iter().map(|v| offset + size * v).collect::<Vec<_>>(), dtype)
                };
                // Of all sizes, so that sums of a few are not exact.
                let dy: Vec<f64> = case.dy.iter().map(|v| v.powi(7)).collect();
                (case.x, case.dy) = (scaled(&case.x, offset, size), scaled(&dy, 0.0, dy_size));
                let expected = case.reference();
                for plan in [CpuPlan::Channels { per_tile: 3, steps: 2 }, CpuPlan::Blocks { rows: 4 }] {
                    let got = case.run(dtype, plan);
                    expect_close("dweight", &got.weight, &expected.weight, 1e-6, dy_size);
                    expect_close("dbias", &got.bias, &expected.bias, 1e-6, dy_size);
                }
            }
        }
    }
}

#[test]
fn large_tensors_give_the_same_bits_for_any_number_of_threads() {
    // Above every size at which work is handed out, in every plan.
    let spec = (Rows::Shared, Rows::Shared, Rows::Shared, true);
    let chosen = |grid| (grid, CpuPlan::new(grid, spec.0, 4, 1));
    let (wide, large) = (Grid { t: 3, n: 16, c: 96, s: 64 }, Grid { t: 2, n: 9, c: 3, s: 5000 });
    let together = CpuPlan::Together { steps: 2, rows: 2 };
    for (grid, plan) in [chosen(wide), chosen(large), (large, together)] {
        let case = case(spec, grid, false, DType::F32, 5);
        let bits = |threads: usize| {
            crate::set_num_threads(threads).expect("starts");
            let got = case.run(DType::F32, plan);
            [got.y, got.dx, got.weight, got.bias, got.scale, got.mean, got.var]
        };
        let one = bits(1);
        for threads in [2, 3, 8] {
            assert!(one == bits(threads), "{threads} threads differ from one");
        }
    }
}

#[test]
fn nan_and_infinity_stay_in_their_channel() {
    let dtypes = [DType::F32, DType::F16, DType::BF16].into_iter().filter(|&dtype| !is_slow(dtype));
    for (dtype, s) in dtypes.flat_map(|dtype| [(dtype, 1), (dtype, 64)]) {
        let grid = Grid { t: 2, n: 30, c: 4, s };
        let mut clean = case((Rows::Shared, Rows::Shared, Rows::Shared, false), grid, false, dtype, 9);
        let mut dirty = case((Rows::Shared, Rows::Shared, Rows::Shared, false), grid, false, dtype, 9);
        // Of all sizes, so that another way to sum them would show.
        clean.dy = rounded(&clean.dy.iter().map(|v| v.powi(7)).collect::<Vec<_>>(), dtype);
        dirty.dy.clone_from(&clean.dy);
        let (nan, infinite) = (dirty.at(0, 1, 1, 0), dirty.at(1, 2, 2, 0));
        dirty.x[nan] = f64::NAN;
        dirty.x[infinite] = f64::INFINITY;
        for plan in [CpuPlan::Channels { per_tile: 4, steps: 2 }, CpuPlan::Blocks { rows: 2 }] {
            let (clean, dirty) = (clean.run(dtype, plan), dirty.run(dtype, plan));
            for c in [0, 3] {
                assert_eq!(
                    clean.weight[c].to_bits(),
                    dirty.weight[c].to_bits(),
                    "{dtype:?} channel {c}: dweight"
                );
            }
            for (i, (a, b)) in clean.y.iter().zip(&dirty.y).enumerate() {
                let c = i / s % grid.c;
                assert_eq!(a == b, c == 0 || c == 3, "channel {c}: {a} became {b}");
                assert!(c == 0 || c == 3 || b.is_nan(), "channel {c} hides what it was given: {b}");
            }
        }
    }
}
