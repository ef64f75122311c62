//! The twelve batch norms for JavaScript.

use std::borrow::Cow;

use napi::Env;
use napi::bindgen_prelude::Object;
use napi_derive::napi;
use spikenorm_core::norm::{Layout, NormForward, NormSaved, NormSpec, Rows, RunningUpdate, Statistics};
use spikenorm_core::{StepMode, Tensor, bail};

use crate::device::{Place, on_device};
use crate::error::{Checked, Result, face};
use crate::handles::{Handle, Made, Registry, device_of, insert, lend, remove, watch};
use crate::tensor::{expect_gradient, expect_parameter_dtype};

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

/// The tensors of a layer that stay its own all its life, whole: all rows of those that are per step. 0 stands for
/// absent.
#[napi(object)]
pub struct NormTensors {
    pub weight: f64,
    pub bias: f64,
    pub running_mean: f64,
    pub running_var: f64,
    /// num_batches_tracked, one per statistics row.
    pub counters: f64,
}

/// What every call of a layer reads.
struct NormLayer {
    spec: NormSpec,
    tensors: NormTensors,
}

/// Registers a layer.
#[napi]
pub fn norm_layer(config: NormConfig, tensors: NormTensors) -> Result<f64> {
    face(|| {
        let spec = NormSpec {
            spatial: config.spatial as usize,
            channels: config.channels as usize,
            layout: layout(config.channels_last),
            steps: (config.steps > 0).then_some(config.steps as usize),
            statistics: rows(&config.statistics)?,
            weight: rows(&config.weight)?,
            bias: rows(&config.bias)?,
            time_scale: config.time_scale,
            eps: config.eps,
        };
        spec.check()?;
        Ok(insert(NormLayer { spec, tensors }))
    })
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
/// a cumulative average. `scale` is that of time, 0 where absent. Makes y, which lives as long as `owner` (a call of its
/// own to say so would cost as much as a small forward), and, with `record`, saved.
#[napi]
pub fn norm_forward(
    env: Env,
    owner: Object<'_>,
    layer: f64,
    x: f64,
    scale: f64,
    is_multi: bool,
    first_step: u32,
    training: bool,
    track: bool,
    momentum: Option<f64>,
    record: bool,
) -> Result<f64> {
    let mode = Mode { is_multi, first_step: first_step as usize, training, track, momentum, record };
    face(|| {
        let made = on_device!(device_of(x)?, backend => forward(backend, layer, [x, scale], &mode))?;
        watch(&env, &owner, made.handle(0))?;
        Ok(made.number())
    })
}

fn forward<B: Place>(backend: &B, layer: Handle, [x, scale]: [Handle; 2], mode: &Mode) -> Checked<Made> {
    let mut made = Made::new()?;
    let output = lend(|registry| {
        let NormLayer { spec, tensors } = registry.value(layer)?;
        let x = registry.tensor(backend, "input", x)?;
        let first = mode.first_step;
        let grid = spec.grid(&x.shape, step_mode(mode.is_multi), first)?;
        if !x.dtype.is_float() {
            bail!(Dtype, "input: expected float64, float32, float16 or bfloat16, got {}", x.dtype.name());
        }
        // The rows that this call's steps use.
        let rows_of = |handle: Handle,
                       rows: Rows,
                       what: &str|
         -> Checked<Option<Cow<'_, Tensor<B::Memory>>>> {
            let all = registry.optional_tensor(backend, what, handle)?;
            let is_part = rows == Rows::PerStep;
            Ok(all.map(|all| if is_part { Cow::Owned(all.rows(first, grid.t)) } else { Cow::Borrowed(all) }))
        };
        let of_call = |handle: Handle, rows: Rows, what: &str| {
            let rows = rows_of(handle, rows, what)?;
            rows.iter().try_for_each(|rows| expect_parameter_dtype(what, rows, x.dtype))?;
            Ok(rows)
        };
        let weight = of_call(tensors.weight, spec.weight, "weight")?;
        let bias = of_call(tensors.bias, spec.bias, "bias")?;
        let scale = of_call(scale, Rows::Shared, "scale")?;
        let running_mean = of_call(tensors.running_mean, spec.statistics, "running_mean")?;
        let running_var = of_call(tensors.running_var, spec.statistics, "running_var")?;
        let counters = rows_of(tensors.counters, spec.statistics, "num_batches_tracked")?;

        let running = running_mean.as_deref().zip(running_var.as_deref());
        let statistics = match running {
            Some((mean, var)) if !mode.training => Statistics::Running { mean, var },
            _ => {
                spec.check_batch_statistics(grid)?;
                let moves = mode.training && mode.track;
                let tracked = if moves { running.zip(counters.as_deref()) } else { None };
                if let Some(((mean, var), counters)) = tracked {
                    let moved =
                        [("running_mean", mean), ("running_var", var), ("num_batches_tracked", counters)];
                    for (what, tensor) in moved {
                        backend.expect_writable(what, tensor)?;
                        if backend.shares_memory(x, tensor) {
                            bail!(Argument, "input: expected memory of its own, got that of {what}");
                        }
                    }
                }
                let momentum = mode.momentum;
                Statistics::Batch(tracked.map(|((mean, var), counters)| RunningUpdate {
                    mean,
                    var,
                    counters,
                    momentum,
                }))
            }
        };
        backend.norm_forward(&NormForward {
            spec,
            grid,
            x,
            weight: weight.as_deref(),
            bias: bias.as_deref(),
            scale: scale.as_deref(),
            statistics,
            record: mode.record,
        })
    })?;
    made.tensor(0, backend, output.y);
    made.saved_of(1, backend, output.saved, layer);
    Ok(made)
}

/// Backward of a saved forward, which is used up unless `keep_saved`. The parameters' gradients are added to those given;
/// it makes dx and those that are not given (0): dweight, dbias and dscale, where they are. A gradient of one row is
/// without the axis of rows; the others have one row per step of that forward.
#[napi]
pub fn norm_backward(
    env: Env,
    owner: Object<'_>,
    saved: f64,
    dy: f64,
    weight_grad: f64,
    bias_grad: f64,
    scale_grad: f64,
    keep_saved: bool,
) -> Result<f64> {
    face(|| {
        let given = [weight_grad, bias_grad, scale_grad];
        let made = on_device!(device_of(saved)?, backend => backward(backend, saved, dy, given))?;
        if !keep_saved {
            remove(&env, saved);
        }
        watch(&env, &owner, made.handle(0))?;
        Ok(made.number())
    })
}

fn backward<B: Place>(backend: &B, saved: Handle, dy: Handle, given: [Handle; 3]) -> Checked<Made> {
    let mut made = Made::new()?;
    let (dx, [weight, bias, scale]) = lend(|registry| {
        let saved: &NormSaved<B::Memory> = registry.value(saved)?;
        let dy = registry.tensor(backend, "dy", dy)?;
        expect_gradient(dy, &saved.x.shape, saved.x.dtype)?;
        let grads = backend.norm_backward(saved, dy)?;
        let mut fresh = [without_rows(grads.weight), without_rows(grads.bias), grads.scale];
        accumulate(backend, registry, &mut fresh, given)?;
        Ok((grads.dx, fresh))
    })?;
    made.tensor(0, backend, dx);
    made.optional_tensor(1, backend, weight);
    made.optional_tensor(2, backend, bias);
    made.optional_tensor(3, backend, scale);
    Ok(made)
}

fn without_rows<M>(gradient: Option<Tensor<M>>) -> Option<Tensor<M>> {
    gradient.map(|mut gradient| {
        if gradient.shape[0] == 1 {
            gradient.shape.remove(0);
        }
        gradient
    })
}

/// Adds fresh gradients to those of the handles given (0: none); what is left is new. All are checked before the
/// first one changes.
pub fn accumulate<B: Place, const N: usize>(
    backend: &B,
    registry: &Registry,
    fresh: &mut [Option<Tensor<B::Memory>>; N],
    given: [Handle; N],
) -> Checked<()> {
    let mut targets = [None; N];
    for ((target, handle), fresh) in targets.iter_mut().zip(given).zip(&*fresh) {
        *target = registry.optional_tensor(backend, "grad", handle)?;
        if let (Some(target), Some(fresh)) = (&target, fresh) {
            target.expect_shape("grad", &fresh.shape)?;
            target.expect_dtype("grad", fresh.dtype)?;
            backend.expect_writable("grad", target)?;
        }
    }
    for (target, fresh) in targets.into_iter().zip(fresh) {
        if let Some(target) = target
            && let Some(fresh) = fresh.take()
        {
            backend.accumulate(target, &fresh)?;
        }
    }
    Ok(())
}
