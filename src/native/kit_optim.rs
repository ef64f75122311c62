//! Optimiser steps for JavaScript: all parameters in one call, checked before the first one moves.

use napi_derive::napi;
use spikenorm_core::kit::{AdamSpec, AdamStep, SgdSpec, SgdStep};
use spikenorm_core::{DType, Error, ErrorCode, Tensor, bail};

use crate::device::{Device, Place, on_device};
use crate::error::{Checked, Result, face};
use crate::handles::{Handle, device_of, optional_tensor, tensor};

#[napi(object)]
pub struct SgdConfig {
    pub lr: f64,
    pub momentum: f64,
    pub dampening: f64,
    pub weight_decay: f64,
    pub nesterov: bool,
}

#[napi(object)]
pub struct AdamConfig {
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
    /// AdamW.
    pub decoupled: bool,
}

impl From<SgdConfig> for SgdSpec {
    fn from(config: SgdConfig) -> Self {
        let SgdConfig { lr, momentum, dampening, weight_decay, nesterov } = config;
        Self { lr, momentum, dampening, weight_decay, nesterov }
    }
}

impl From<AdamConfig> for AdamSpec {
    fn from(config: AdamConfig) -> Self {
        let AdamConfig { lr, beta1, beta2, eps, weight_decay, decoupled } = config;
        Self { lr, betas: [beta1, beta2], eps, weight_decay, decoupled }
    }
}

/// One parameter's tensors, alike in shape and dtype and each with memory of its own: a gradient that can be read, and
/// others that can be written to, as the parameter.
fn expect_alike<B: Place>(
    backend: &B,
    index: usize,
    parameter: &Tensor<B::Memory>,
    others: &[(&str, &Tensor<B::Memory>)],
) -> Checked<()> {
    backend.expect_writable(&format!("parameter {index}"), parameter)?;
    for (place, (name, other)) in others.iter().enumerate() {
        let what = format!("{name} of parameter {index}");
        other.expect_shape(&what, &parameter.shape)?;
        other.expect_dtype(&what, parameter.dtype)?;
        let before = others[..place].iter().map(|(_, tensor)| *tensor).chain([parameter]);
        for known in before {
            if backend.shares_memory(known, other) {
                bail!(Argument, "{what}: expected memory of its own, got that of another tensor of the step");
            }
        }
        match *name {
            GRADIENT => backend.expect_readable(&what, other)?,
            _ => backend.expect_writable(&what, other)?,
        }
    }
    Ok(())
}

const GRADIENT: &str = "gradient";

fn at(handles: &[Handle], index: usize) -> Checked<Handle> {
    let missing = || Error::new(ErrorCode::Argument, "expected one handle per parameter");
    handles.get(index).copied().ok_or_else(missing)
}

/// Throws where an SGD of this configuration could not step.
#[napi]
pub fn check_sgd(config: SgdConfig) -> Result<()> {
    face(|| SgdSpec::from(config).check())
}

/// Throws where an Adam of this configuration could not step.
#[napi]
pub fn check_adam(config: AdamConfig) -> Result<()> {
    face(|| AdamSpec::from(config).check())
}

/// The device of all parameters of a step; the CPU where there are none.
fn device(parameters: &[Handle]) -> Checked<Device> {
    parameters.first().map_or(Ok(Device::Cpu), |&handle| device_of(handle))
}

/// Moves parameters and momentum buffers (0 without momentum) in place: all, or on an error none. `first` says
/// whose buffer holds nothing yet.
#[napi]
pub fn sgd_step(
    config: SgdConfig,
    parameters: Vec<f64>,
    grads: Vec<f64>,
    momenta: Vec<f64>,
    first: Vec<bool>,
) -> Result<()> {
    face(|| {
        let spec = SgdSpec::from(config);
        spec.check()?;
        on_device!(device(&parameters)?, backend => {
            sgd(backend, spec, [&parameters, &grads, &momenta], &first)
        })
    })
}

fn sgd<B: Place>(
    backend: &B,
    spec: SgdSpec,
    [parameters, grads, momenta]: [&[Handle]; 3],
    first: &[bool],
) -> Checked<()> {
    let mut steps = Vec::with_capacity(parameters.len());
    for (index, &handle) in parameters.iter().enumerate() {
        let parameter = tensor(backend, "parameter", handle)?;
        let grad = tensor(backend, "gradient", at(grads, index)?)?;
        let momentum = optional_tensor(backend, "momentum", at(momenta, index)?)?;
        let mut others = vec![(GRADIENT, &grad)];
        others.extend(momentum.as_ref().map(|momentum| ("momentum", momentum)));
        expect_alike(backend, index, &parameter, &others)?;
        steps.push((parameter, grad, momentum, first.get(index).copied().unwrap_or(true)));
    }
    for (parameter, grad, momentum, first) in &steps {
        let momentum = momentum.as_ref();
        backend.sgd_step(&SgdStep { spec, parameter, grad, momentum, first: *first })?;
    }
    Ok(())
}

/// Moves parameters, moments and counts of steps (int64, shape []) in place: all, or on an error none.
#[napi]
pub fn adam_step(
    config: AdamConfig,
    parameters: Vec<f64>,
    grads: Vec<f64>,
    first_moments: Vec<f64>,
    second_moments: Vec<f64>,
    steps: Vec<f64>,
) -> Result<()> {
    face(|| {
        let spec = AdamSpec::from(config);
        spec.check()?;
        on_device!(device(&parameters)?, backend => {
            adam(backend, spec, [&parameters, &grads, &first_moments, &second_moments, &steps])
        })
    })
}

fn adam<B: Place>(
    backend: &B,
    spec: AdamSpec,
    [parameters, grads, first_moments, second_moments, steps]: [&[Handle]; 5],
) -> Checked<()> {
    let mut calls = Vec::with_capacity(parameters.len());
    for (index, &handle) in parameters.iter().enumerate() {
        let parameter = tensor(backend, "parameter", handle)?;
        let grad = tensor(backend, "gradient", at(grads, index)?)?;
        let moments = [
            tensor(backend, "exp_avg", at(first_moments, index)?)?,
            tensor(backend, "exp_avg_sq", at(second_moments, index)?)?,
        ];
        let others = [(GRADIENT, &grad), ("exp_avg", &moments[0]), ("exp_avg_sq", &moments[1])];
        expect_alike(backend, index, &parameter, &others)?;
        let step = tensor(backend, "step", at(steps, index)?)?;
        step.expect_shape("step", &[])?;
        step.expect_dtype("step", DType::I64)?;
        backend.expect_writable("step", &step)?;
        calls.push((parameter, grad, moments, step));
    }
    for (parameter, grad, [first_moment, second_moment], step) in &calls {
        backend.adam_step(&AdamStep { spec, parameter, grad, first_moment, second_moment, step })?;
    }
    Ok(())
}
