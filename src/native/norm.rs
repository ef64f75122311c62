//! The twelve batch norms for JavaScript.

use napi_derive::napi;
use spikenorm_core::norm::{Layout, NormForward, NormSaved, NormSpec, Rows, RunningUpdate, Statistics};
use spikenorm_core::{StepMode, Tensor, bail};

use crate::device::{Place, on_device};
use crate::error::{Checked, Result, face};
use crate::handles::{
    Handle, device_of, get, insert, insert_optional, insert_saved, insert_tensor, optional_tensor, tensor,
};
use crate::tensor::{Handles, expect_gradient, expect_parameter_dtype};

/// `NormSpec` as TypeScript writes it: `'absent' | 'shared' | 'perStep'` for rows.
#[napi(object)]
pub struct NormConfig {
    pub spatial: u32,
    pub channels: u32,
    pub channels_last: bool,
    /// 0 where the layer takes any number of steps.
    pub steps: u32,
    pub statistics: String,
    pub weight: String,
    pub bias: String,
    pub time_scale: bool,
    pub eps: f64,
}

fn rows(name: &str) -> Checked<Rows> {
    match name {
        "absent" => Ok(Rows::Absent),
        "shared" => Ok(Rows::Shared),
        "perStep" => Ok(Rows::PerStep),
        _ => bail!(Argument, "rows: expected absent, shared or perStep, got '{name}'"),
    }
}

pub fn layout(channels_last: bool) -> Layout {
    if channels_last { Layout::ChannelsLast } else { Layout::Contiguous }
}

pub fn step_mode(is_multi: bool) -> StepMode {
    if is_multi { StepMode::Multi } else { StepMode::Single }
}

/// Registers a specification.
#[napi]
pub fn norm_spec(config: NormConfig) -> Result<u32> {
    face(|| {
        Ok(insert(NormSpec {
            spatial: config.spatial as usize,
            channels: config.channels as usize,
            layout: layout(config.channels_last),
            steps: (config.steps > 0).then_some(config.steps as usize),
            statistics: rows(&config.statistics)?,
            weight: rows(&config.weight)?,
            bias: rows(&config.bias)?,
            time_scale: config.time_scale,
            eps: config.eps,
        }))
    })
}

/// The tensors of a layer, whole: all rows of those that are per step. 0 stands for absent.
#[napi(object)]
pub struct NormState {
    pub weight: u32,
    pub bias: u32,
    pub scale: u32,
    pub running_mean: u32,
    pub running_var: u32,
    /// num_batches_tracked, one per statistics row.
    pub counters: u32,
}

/// How a forward is to be run.
struct Mode {
    is_multi: bool,
    first_step: usize,
    training: bool,
    track: bool,
    momentum: Option<f64>,
    record: bool,
}

/// Forward. `training` chooses batch statistics and `track` moves the running ones; `momentum` absent means
/// a cumulative average. Returns `[y, saved]`, saved 0 without `record`.
#[napi]
pub fn norm_forward(
    spec: u32,
    x: u32,
    is_multi: bool,
    first_step: u32,
    state: NormState,
    training: bool,
    track: bool,
    momentum: Option<f64>,
    record: bool,
) -> Result<Handles> {
    let mode = Mode { is_multi, first_step: first_step as usize, training, track, momentum, record };
    face(|| on_device!(device_of(x)?, backend => forward(backend, spec, x, &state, &mode)))
}

fn forward<B: Place>(
    backend: &B,
    spec: Handle,
    x: Handle,
    state: &NormState,
    mode: &Mode,
) -> Checked<Handles> {
    let spec = get(spec, |spec: &NormSpec| Ok(spec.clone()))?;
    let x = tensor(backend, "input", x)?;
    let first = mode.first_step;
    let grid = spec.grid(&x.shape, step_mode(mode.is_multi), first)?;
    if !x.dtype.is_float() {
        bail!(Dtype, "input: expected float64, float32, float16 or bfloat16, got {}", x.dtype.name());
    }
    // The rows that this call's steps use.
    let rows_of = |handle: u32, rows: Rows, what: &str| -> Checked<Option<Tensor<B::Memory>>> {
        let all = optional_tensor(backend, what, handle)?;
        Ok(all.map(|all| if rows == Rows::PerStep { all.rows(first, grid.t) } else { all }))
    };
    let of_call = |handle: u32, rows: Rows, what: &str| -> Checked<Option<Tensor<B::Memory>>> {
        let rows = rows_of(handle, rows, what)?;
        rows.iter().try_for_each(|rows| expect_parameter_dtype(what, rows, x.dtype))?;
        Ok(rows)
    };
    let weight = of_call(state.weight, spec.weight, "weight")?;
    let bias = of_call(state.bias, spec.bias, "bias")?;
    let scale = of_call(state.scale, Rows::Shared, "scale")?;
    let running_mean = of_call(state.running_mean, spec.statistics, "running_mean")?;
    let running_var = of_call(state.running_var, spec.statistics, "running_var")?;
    let counters = rows_of(state.counters, spec.statistics, "num_batches_tracked")?;

    let running = running_mean.as_ref().zip(running_var.as_ref());
    let statistics = match running {
        Some((mean, var)) if !mode.training => Statistics::Running { mean, var },
        _ => {
            spec.check_batch_statistics(grid)?;
            let tracked = if mode.training && mode.track { running.zip(counters.as_ref()) } else { None };
            let momentum = mode.momentum;
            Statistics::Batch(tracked.map(|((mean, var), counters)| RunningUpdate {
                mean,
                var,
                counters,
                momentum,
            }))
        }
    };
    let output = backend.norm_forward(&NormForward {
        spec: &spec,
        grid,
        x: &x,
        weight: weight.as_ref(),
        bias: bias.as_ref(),
        scale: scale.as_ref(),
        statistics,
        record: mode.record,
    })?;
    Ok(vec![insert_tensor(backend, output.y), insert_saved(backend, output.saved)])
}

/// Backward of a saved forward. Returns `[dx, dweight, dbias, dscale]`, 0 where absent; the gradients of
/// per-step tensors have one row per step of that forward.
#[napi]
pub fn norm_backward(saved: u32, dy: u32) -> Result<Handles> {
    face(|| on_device!(device_of(saved)?, backend => backward(backend, saved, dy)))
}

fn backward<B: Place>(backend: &B, saved: Handle, dy: Handle) -> Checked<Handles> {
    let dy = tensor(backend, "dy", dy)?;
    let grads = get(saved, |saved: &NormSaved<B::Memory>| {
        expect_gradient(&dy, &saved.x.shape, saved.x.dtype)?;
        backend.norm_backward(saved, &dy)
    })?;
    Ok(vec![
        insert_tensor(backend, grads.dx),
        insert_optional(backend, grads.weight),
        insert_optional(backend, grads.bias),
        insert_optional(backend, grads.scale),
    ])
}
