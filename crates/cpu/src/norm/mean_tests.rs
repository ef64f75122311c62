//! Float64 keeps its digits however large the mean: inputs are whole multiples of a power of two, so that the reference knows
//! their sums exactly, as integers.

use spikenorm_core::norm::{CpuPlan, Layout, NormForward, NormSpec, Rows, RunningUpdate, Statistics};
use spikenorm_core::{Backend, DType, Grid};

use super::backward::backward_planned;
use super::forward::forward_planned;
use crate::backend::{Cpu, CpuTensor};
use crate::tensor_ops::{read_f64, write_f64};

const UNIT: f64 = 1.0 / 1024.0;
const EPS: f64 = 1e-12;

fn tensor(values: &[f64], shape: &[usize]) -> CpuTensor {
    let tensor = Cpu.allocate(shape, DType::F64).expect("allocates");
    write_f64(&tensor, values).expect("writes");
    tensor
}

struct Case {
    grid: Grid,
    statistics: Rows,
    scale: Option<Vec<f64>>,
    weight: f64,
    mean: i128,
    /// x in units, without the mean, and dy.
    x: Vec<i128>,
    dy: Vec<i128>,
}

#[derive(Debug, Default)]
struct Outcome {
    y: Vec<f64>,
    dx: Vec<f64>,
    dweight: Vec<f64>,
    dscale: Vec<f64>,
    running_mean: Vec<f64>,
}

impl Case {
    fn new(grid: Grid, statistics: Rows, has_scale: bool, mean: f64) -> Self {
        let mut state = 1u64;
        let mut below = |count: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % count) as i128
        };
        Self {
            grid,
            statistics,
            scale: has_scale.then(|| (0..grid.t).map(|t| 1.0 + 0.5 * t as f64).collect()),
            weight: 1.25,
            mean: (mean / UNIT) as i128,
            x: (0..grid.len()).map(|_| below(21) + below(21) - 20).collect(),
            dy: (0..grid.len()).map(|i| if i * 7 % 11 == 0 { 3 } else { below(3) - 1 }).collect(),
        }
    }

    /// The formulas on integers, and only their results in float64. N·x − Σx is the deviation, in units, N times.
    fn reference(&self) -> Outcome {
        let Grid { t: steps, n: samples, c: channels, s: space } = self.grid;
        let mut out = Outcome {
            y: vec![0.0; self.x.len()],
            dx: vec![0.0; self.x.len()],
            dweight: vec![0.0; channels],
            dscale: vec![0.0; if self.scale.is_some() { steps } else { 0 }],
            running_mean: Vec::new(),
        };
        for row in 0..self.statistics.count(steps) {
            for c in 0..channels {
                let of_row = (0..steps).filter(|&t| self.statistics.of(t) == row);
                let all: Vec<(usize, usize)> = of_row
                    .flat_map(|t| (0..samples).map(move |n| (t, n)))
                    .flat_map(|(t, n)| {
                        let start = ((t * samples + n) * channels + c) * space;
                        (start..start + space).map(move |i| (t, i))
                    })
                    .collect();
                let count = all.len() as i128;
                let sum: i128 = all.iter().map(|&(_, i)| self.x[i]).sum();
                let deviation = |i: usize| count * self.x[i] - sum;
                let squares: i128 = all.iter().map(|&(_, i)| deviation(i) * deviation(i)).sum();
                let whole = count as f64;
                let var = squares as f64 / (whole * whole * whole) * UNIT * UNIT;
                let rstd = 1.0 / (var + EPS).sqrt();
                let x_hat = |i: usize| deviation(i) as f64 / whole * UNIT * rstd;
                let p = |t: usize| self.scale.as_ref().map_or(1.0, |scale| scale[t]);
                // Of p·dy: halves, so that twice them is whole.
                let twice = |t: usize, i: usize| (2.0 * p(t)) as i128 * self.dy[i];
                let s1: i128 = all.iter().map(|&(t, i)| twice(t, i)).sum();
                let s2: i128 = all.iter().map(|&(t, i)| twice(t, i) * deviation(i)).sum();
                out.dweight[c] += s2 as f64 / (2.0 * whole) * UNIT * rstd;
                out.running_mean.push(((self.mean * count + sum) as f64 / whole) * UNIT);
                for &(t, i) in &all {
                    out.y[i] = p(t) * self.weight * x_hat(i);
                    let centred = (count * twice(t, i) - s1) as f64 / (2.0 * whole);
                    let slope = s2 as f64 / (2.0 * whole * whole) * UNIT * rstd;
                    out.dx[i] = rstd * self.weight * (centred - x_hat(i) * slope);
                }
                for t in 0..out.dscale.len() {
                    let of_step = all.iter().filter(|(step, _)| *step == t);
                    let sum: i128 = of_step.map(|&(_, i)| self.dy[i] * deviation(i)).sum();
                    out.dscale[t] += self.weight * (sum as f64 / whole * UNIT * rstd);
                }
            }
        }
        out
    }

    fn run(&self, plan: Option<CpuPlan>) -> Outcome {
        let Grid { t, n, c, s } = self.grid;
        let rows = self.statistics.count(t);
        let spec = NormSpec {
            spatial: 1,
            channels: c,
            layout: Layout::Contiguous,
            steps: None,
            statistics: self.statistics,
            weight: Rows::Shared,
            bias: Rows::Absent,
            time_scale: self.scale.is_some(),
            eps: EPS,
        };
        let values: Vec<f64> = self.x.iter().map(|x| (self.mean + x) as f64 * UNIT).collect();
        let dy: Vec<f64> = self.dy.iter().map(|&dy| dy as f64).collect();
        let (x, dy) = (tensor(&values, &[t, n, c, s]), tensor(&dy, &[t, n, c, s]));
        let weight = tensor(&vec![self.weight; c], &[1, c]);
        let scale = self.scale.as_ref().map(|scale| tensor(scale, &[t]));
        let (mean, var) =
            (tensor(&vec![0.0; rows * c], &[rows, c]), tensor(&vec![0.0; rows * c], &[rows, c]));
        let counters =
            Cpu.upload(bytemuck::cast_slice(&vec![0i64; rows]), &[rows], DType::I64).expect("fits");
        let update = RunningUpdate { mean: &mean, var: &var, counters: &counters, momentum: None };
        let call = NormForward {
            spec: &spec,
            grid: self.grid,
            x: &x,
            weight: Some(&weight),
            bias: None,
            scale: scale.as_ref(),
            statistics: Statistics::Batch(Some(update)),
            record: true,
        };
        let output = match plan {
            Some(plan) => forward_planned::<f64>(&call, plan),
            None => Cpu.norm_forward(&call),
        }
        .expect("runs");
        let saved = output.saved.expect("recorded");
        let grads = match plan {
            Some(plan) => backward_planned::<f64>(&saved, &dy, plan),
            None => Cpu.norm_backward(&saved, &dy),
        }
        .expect("runs");
        let values = |tensor: &CpuTensor| read_f64(tensor).expect("reads");
        Outcome {
            y: values(&output.y),
            dx: values(&grads.dx),
            dweight: values(&grads.weight.expect("given")),
            dscale: grads.scale.as_ref().map_or(Vec::new(), values),
            running_mean: values(&mean),
        }
    }
}

/// Off by at most so much of the largest.
fn expect_close(what: &str, got: &[f64], expected: &[f64], floor: f64, tolerance: f64, case: &str) {
    assert_eq!(got.len(), expected.len(), "{what} {case}");
    let largest = expected.iter().fold(floor, |m, v| m.max(v.abs()));
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (got - expected).abs() / largest;
        assert!(
            error <= tolerance,
            "{what}[{i}] {case}: expected {expected:e}, got {got:e}, off by {error:e}"
        );
    }
}

#[test]
fn float64_does_not_depend_on_the_mean() {
    let grid = |t, n, c, s| Grid { t, n, c, s };
    let grids = [
        grid(1, 4096, 1, 1),
        grid(2, 300, 3, 1),
        grid(3, 150, 2, 5),
        grid(2, 40, 3, 70),
        grid(2, 3, 2, 100),
        grid(2, 3, 2, 1030),
        grid(1, 2, 2, 9000),
    ];
    for mean in [0.0, 1e4, -1e6, 1e9] {
        for grid in grids {
            for (statistics, has_scale) in
                [(Rows::Shared, false), (Rows::Shared, true), (Rows::PerStep, false), (Rows::PerStep, true)]
            {
                let case = Case::new(grid, statistics, has_scale, mean);
                let expected = case.reference();
                let steps = if statistics == Rows::PerStep { 1 } else { grid.t };
                let plans = [
                    None,
                    Some(CpuPlan::Channels { per_tile: 2.min(grid.c), steps }),
                    Some(CpuPlan::Together { steps, rows: grid.n.div_ceil(3) }),
                    Some(CpuPlan::Blocks { rows: grid.n.div_ceil(5) }),
                ];
                for plan in plans {
                    let got = case.run(plan);
                    let of = format!("{grid:?} {statistics:?} scale {has_scale} mean {mean} {plan:?}");
                    // Sums of as many terms of either sign, which may be far smaller.
                    let sum = (grid.len() as f64).sqrt();
                    let deviation = expected.dx.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                    expect_close("y", &got.y, &expected.y, 0.0, 2e-15, &of);
                    expect_close("dx", &got.dx, &expected.dx, deviation, 4e-15, &of);
                    expect_close("dweight", &got.dweight, &expected.dweight, sum, 1e-14, &of);
                    expect_close("dscale", &got.dscale, &expected.dscale, sum, 1e-14, &of);
                    expect_close("running_mean", &got.running_mean, &expected.running_mean, 0.01, 1e-15, &of);
                }
            }
        }
    }
}

/// A pivot far from the mean, so that a run is summed again.
#[test]
fn float64_does_not_depend_on_the_mean_after_an_outlier() {
    for grid in [Grid { t: 1, n: 500, c: 1, s: 1 }, Grid { t: 1, n: 2, c: 1, s: 9000 }] {
        let mut case = Case::new(grid, Rows::Shared, false, 1e6);
        case.x[0] = 3000;
        let (got, expected) = (case.run(None), case.reference());
        expect_close("y", &got.y, &expected.y, 0.0, 2e-15, "outlier");
        expect_close("dx", &got.dx, &expected.dx, 0.0, 4e-15, "outlier");
        expect_close(
            "dweight",
            &got.dweight,
            &expected.dweight,
            (grid.len() as f64).sqrt(),
            1e-14,
            "outlier",
        );
    }
}

#[test]
fn a_constant_channel_has_no_deviation_in_any_type() {
    for (value, count) in [(0.1, 3), (1e300, 7), (-12345.678, 1000)] {
        let spec = NormSpec {
            spatial: 1,
            channels: 1,
            layout: Layout::Contiguous,
            steps: None,
            statistics: Rows::Shared,
            weight: Rows::Absent,
            bias: Rows::Absent,
            time_scale: false,
            eps: 1e-100,
        };
        let grid = Grid { t: 1, n: count, c: 1, s: 1 };
        let x = tensor(&vec![value; count], &[1, count, 1, 1]);
        let call = NormForward {
            spec: &spec,
            grid,
            x: &x,
            weight: None,
            bias: None,
            scale: None,
            statistics: Statistics::Batch(None),
            record: false,
        };
        let y = Cpu.norm_forward(&call).expect("runs").y;
        assert_eq!(read_f64(&y).expect("reads"), vec![0.0; count], "{value}");
    }
}
