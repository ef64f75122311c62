//! The twelve batch norms for JavaScript.

use napi_derive::napi;
use spikenorm_core::norm::{NormForward, NormSaved, NormSpec, Rows, RunningUpdate, Statistics};
use spikenorm_core::{Backend, DType, StepMode, bail};
use spikenorm_cpu::{Cpu, CpuTensor, HostMemory};

use crate::error::{Checked, Result, face};
use crate::handles::{get, insert, insert_optional, insert_tensor, optional_tensor, tensor};
use crate::tensor::{Handles, expect_gradient, expect_parameter_dtype};

/// `NormSpec` as TypeScript writes it: `'absent' | 'shared' | 'perStep'` for rows.
#[napi(object)]
pub struct NormConfig {
    pub spatial: u32,
    pub channels: u32,
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
    face(|| {
        let spec = get(spec, |spec: &NormSpec| Ok(spec.clone()))?;
        let x = tensor(x)?;
        let first = first_step as usize;
        let grid = spec.grid(&x.shape, step_mode(is_multi), first)?;
        if !x.dtype.is_float() {
            bail!(Dtype, "input: expected float64, float32, float16 or bfloat16, got {}", x.dtype.name());
        }
        // The rows that this call's steps use.
        let of_call = |handle: u32, rows: Rows, what: &str| -> Checked<Option<CpuTensor>> {
            let Some(all) = optional_tensor(handle)? else { return Ok(None) };
            if all.dtype != DType::I64 {
                expect_parameter_dtype(what, &all, x.dtype)?;
            }
            Ok(Some(if rows == Rows::PerStep { all.rows(first, grid.t) } else { all }))
        };
        let weight = of_call(state.weight, spec.weight, "weight")?;
        let bias = of_call(state.bias, spec.bias, "bias")?;
        let scale = of_call(state.scale, Rows::Shared, "scale")?;
        let running_mean = of_call(state.running_mean, spec.statistics, "running_mean")?;
        let running_var = of_call(state.running_var, spec.statistics, "running_var")?;
        let counters = of_call(state.counters, spec.statistics, "num_batches_tracked")?;

        let running = running_mean.as_ref().zip(running_var.as_ref());
        let uses_batch = training || running.is_none();
        if uses_batch {
            spec.check_batch_statistics(grid)?;
        }
        let tracked = if training && track { running.zip(counters.as_ref()) } else { None };
        let counts: Vec<i64> = match tracked {
            Some((_, counters)) => {
                let memory = counters.memory.read()?;
                memory.slice::<i64>(counters.offset, counters.len()).iter().map(|count| count + 1).collect()
            }
            None => Vec::new(),
        };
        let factors: Vec<f64> = counts.iter().map(|&count| momentum.unwrap_or(1.0 / count as f64)).collect();
        let statistics = match (uses_batch, running) {
            (false, Some((mean, var))) => Statistics::Running { mean, var },
            _ => Statistics::Batch(tracked.map(|((mean, var), _)| RunningUpdate {
                mean,
                var,
                factors: &factors,
            })),
        };
        let output = Cpu.norm_forward(&NormForward {
            spec: &spec,
            grid,
            x: &x,
            weight: weight.as_ref(),
            bias: bias.as_ref(),
            scale: scale.as_ref(),
            statistics,
            record,
        })?;
        if let Some((_, counters)) = tracked {
            counters.memory.write()?.slice::<i64>(counters.offset, counters.len()).copy_from_slice(&counts);
        }
        Ok(vec![insert_tensor(output.y), output.saved.map_or(0, insert)])
    })
}

/// Backward of a saved forward. Returns `[dx, dweight, dbias, dscale]`, 0 where absent; the gradients of
/// per-step tensors have one row per step of that forward.
#[napi]
pub fn norm_backward(saved: u32, dy: u32) -> Result<Handles> {
    face(|| {
        let dy = tensor(dy)?;
        let grads = get(saved, |saved: &NormSaved<HostMemory>| {
            expect_gradient(&dy, &saved.x.shape, saved.x.dtype)?;
            Cpu.norm_backward(saved, &dy)
        })?;
        Ok(vec![
            insert_tensor(grads.dx),
            insert_optional(grads.weight),
            insert_optional(grads.bias),
            insert_optional(grads.scale),
        ])
    })
}
