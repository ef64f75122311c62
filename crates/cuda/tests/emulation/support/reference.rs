//! Naive float64 formulas, written from the definitions and sharing nothing with any backend.

use spikenorm_core::Grid;
use spikenorm_core::norm::{NormSpec, Rows};

#[derive(Clone)]
pub struct Inputs {
    /// `[T, N, C, S]`.
    pub x: Vec<f64>,
    pub dy: Vec<f64>,
    pub weight: Option<Vec<f64>>,
    pub bias: Option<Vec<f64>>,
    pub scale: Option<Vec<f64>>,
    pub running_mean: Vec<f64>,
    pub running_var: Vec<f64>,
    /// num_batches_tracked before the forward, per statistics row.
    pub counters: Vec<i64>,
    pub momentum: Option<f64>,
}

#[derive(Default)]
pub struct Expected {
    pub y: Vec<f64>,
    /// `[rows, C]`.
    pub mean: Vec<f64>,
    /// What `mean` lost to rounding.
    pub mean_low: Vec<f64>,
    pub inverse: Vec<f64>,
    pub running_mean: Vec<f64>,
    pub running_var: Vec<f64>,
    pub dx: Vec<f64>,
    pub weight: Vec<f64>,
    pub bias: Vec<f64>,
    pub scale: Vec<f64>,
}

pub fn norm(spec: &NormSpec, grid: Grid, inputs: &Inputs, batch_statistics: bool) -> Expected {
    let Grid { t: steps, n, c: channels, s } = grid;
    let index = |t: usize, i: usize, c: usize, j: usize| ((t * n + i) * channels + c) * s + j;
    let row = |rows: Rows, t: usize, c: usize| if rows == Rows::PerStep { t * channels + c } else { c };
    let rows = spec.statistics.count(steps);
    let w = |t: usize, c: usize| inputs.weight.as_ref().map_or(1.0, |w| w[row(spec.weight, t, c)]);
    let b = |t: usize, c: usize| inputs.bias.as_ref().map_or(0.0, |b| b[row(spec.bias, t, c)]);
    let p = |t: usize| inputs.scale.as_ref().map_or(1.0, |p| p[t]);
    let zeros =
        |given: Rows, present: bool| vec![0.0; if present { given.count(steps) * channels } else { 0 }];
    let mut out = Expected {
        y: vec![0.0; inputs.x.len()],
        dx: vec![0.0; inputs.x.len()],
        mean: vec![0.0; rows * channels],
        mean_low: vec![0.0; rows * channels],
        inverse: vec![0.0; rows * channels],
        running_mean: inputs.running_mean.clone(),
        running_var: inputs.running_var.clone(),
        weight: zeros(spec.weight, inputs.weight.is_some()),
        bias: zeros(spec.bias, inputs.bias.is_some()),
        scale: vec![0.0; if inputs.scale.is_some() { steps } else { 0 }],
    };
    for r in 0..rows {
        let steps_of_row = if spec.statistics == Rows::PerStep { r..r + 1 } else { 0..steps };
        for c in 0..channels {
            let mut cells = Vec::new();
            for t in steps_of_row.clone() {
                for i in 0..n {
                    cells.extend((0..s).map(|j| index(t, i, c, j)));
                }
            }
            let at = r * channels + c;
            let count = cells.len() as f64;
            // Deviations from one of the values, so that a large mean costs no digits.
            let origin = if batch_statistics { inputs.x[cells[0]] } else { inputs.running_mean[at] };
            let (shift, var) = if batch_statistics {
                let shift = cells.iter().map(|&e| inputs.x[e] - origin).sum::<f64>() / count;
                let var = cells.iter().map(|&e| (inputs.x[e] - origin - shift).powi(2)).sum::<f64>() / count;
                (shift, var)
            } else {
                (0.0, inputs.running_var[at])
            };
            let inverse = 1.0 / (var + spec.eps).sqrt();
            out.mean[at] = origin + shift;
            out.mean_low[at] = (origin - out.mean[at]) + shift;
            out.inverse[at] = inverse;
            if batch_statistics {
                let f = inputs.momentum.unwrap_or(1.0 / (inputs.counters[r] + 1) as f64);
                let unbiased = var * count / (count - 1.0);
                out.running_mean[at] = (1.0 - f) * inputs.running_mean[at] + f * (origin + shift);
                out.running_var[at] = (1.0 - f) * inputs.running_var[at] + f * unbiased;
            }
            let hat = |e: usize| ((inputs.x[e] - origin) - shift) * inverse;
            let step_of = |e: usize| e / (n * channels * s);
            let (mut k1, mut k2) = (0.0, 0.0);
            for &e in &cells {
                let t = step_of(e);
                out.y[e] = p(t) * (w(t, c) * hat(e) + b(t, c));
                k1 += p(t) * w(t, c) * inputs.dy[e] / count;
                k2 += p(t) * w(t, c) * inputs.dy[e] * hat(e) / count;
                if let Some(sum) = out.weight.get_mut(row(spec.weight, t, c)) {
                    *sum += p(t) * inputs.dy[e] * hat(e);
                }
                if let Some(sum) = out.bias.get_mut(row(spec.bias, t, c)) {
                    *sum += p(t) * inputs.dy[e];
                }
                if let Some(sum) = out.scale.get_mut(t) {
                    *sum += inputs.dy[e] * (w(t, c) * hat(e) + b(t, c));
                }
            }
            for &e in &cells {
                let t = step_of(e);
                let means = if batch_statistics { k1 + hat(e) * k2 } else { 0.0 };
                out.dx[e] = inverse * (p(t) * w(t, c) * inputs.dy[e] - means);
            }
        }
    }
    out
}

pub struct NeuNormInputs {
    /// `[T, N, C, S]`.
    pub x: Vec<f64>,
    pub dy: Vec<f64>,
    /// `[C, S]` or `[1, S]`.
    pub weight: Vec<f64>,
    /// `[N, S]`.
    pub state: Option<Vec<f64>>,
    pub carry: Option<Vec<f64>>,
}

pub struct NeuNormExpected {
    pub y: Vec<f64>,
    /// `[T, N, S]`.
    pub states: Vec<f64>,
    pub dx: Vec<f64>,
    pub weight: Vec<f64>,
    /// Gradient of the state before the first step.
    pub state: Vec<f64>,
}

pub fn neu_norm(k: f64, shared: bool, grid: Grid, inputs: &NeuNormInputs) -> NeuNormExpected {
    let Grid { t: steps, n, c: channels, s } = grid;
    let index = |t: usize, i: usize, c: usize, j: usize| ((t * n + i) * channels + c) * s + j;
    let w = |c: usize, j: usize| if shared { j } else { c * s + j };
    let k1 = (1.0 - k) / (channels * channels) as f64;
    let mut out = NeuNormExpected {
        y: vec![0.0; inputs.x.len()],
        states: vec![0.0; steps * n * s],
        dx: vec![0.0; inputs.x.len()],
        weight: vec![0.0; inputs.weight.len()],
        state: vec![0.0; n * s],
    };
    for i in 0..n {
        for j in 0..s {
            let mut state = inputs.state.as_ref().map_or(0.0, |state| state[i * s + j]);
            for t in 0..steps {
                state = k * state + k1 * (0..channels).map(|c| inputs.x[index(t, i, c, j)]).sum::<f64>();
                out.states[(t * n + i) * s + j] = state;
                for c in 0..channels {
                    let e = index(t, i, c, j);
                    out.y[e] = inputs.x[e] - inputs.weight[w(c, j)] * state;
                    out.weight[w(c, j)] -= inputs.dy[e] * state;
                }
            }
            let mut later = inputs.carry.as_ref().map_or(0.0, |carry| carry[i * s + j]);
            for t in (0..steps).rev() {
                later -=
                    (0..channels).map(|c| inputs.weight[w(c, j)] * inputs.dy[index(t, i, c, j)]).sum::<f64>();
                for c in 0..channels {
                    let e = index(t, i, c, j);
                    out.dx[e] = inputs.dy[e] + k1 * later;
                }
                later *= k;
            }
            out.state[i * s + j] = later;
        }
    }
    out
}
