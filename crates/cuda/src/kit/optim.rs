//! Optimiser steps: one launch per parameter.

use spikenorm_core::kit::{AdamSpec, SgdSpec};
use spikenorm_core::norm::CudaDevice;
use spikenorm_core::{DType, Result, bail};

use super::params::{AdamParams, SgdParams, Span};
use super::span::widest;
use super::{Operand, over};
use crate::launches::Launch;
use crate::params::{Address, dtype_name};

/// What is left for the caller: the addresses.
pub fn sgd_params(spec: SgdSpec, first: bool) -> SgdParams {
    SgdParams {
        lr: spec.lr,
        decay: spec.weight_decay,
        keep: spec.momentum,
        take: 1.0 - spec.dampening,
        look_ahead: spec.momentum,
        nesterov: spec.nesterov.into(),
        first: first.into(),
        ..Default::default()
    }
}

/// What is left for the caller: the addresses.
pub fn adam_params(spec: AdamSpec) -> AdamParams {
    let (into_grad, shrink) =
        if spec.decoupled { (0.0, 1.0 - spec.lr * spec.weight_decay) } else { (spec.weight_decay, 1.0) };
    let [beta1, beta2] = spec.betas;
    AdamParams { lr: spec.lr, beta1, beta2, eps: spec.eps, into_grad, shrink, ..Default::default() }
}

fn span(dtype: DType, count: usize, addresses: &[Address]) -> Result<(Span, usize)> {
    if !matches!(dtype, DType::F32 | DType::F64) {
        bail!(Dtype, "parameter: expected float32 or float64, got {}", dtype.name());
    }
    let operands: Vec<_> = addresses.iter().map(|&address| Operand::new(address, dtype)).collect();
    let span = Span::new(count, widest(dtype), &operands);
    Ok((span, span.items(widest(dtype))))
}

pub fn sgd(
    dtype: DType,
    count: usize,
    params: &SgdParams,
    device: &CudaDevice,
) -> Result<Option<Launch<SgdParams>>> {
    let (span, items) = span(dtype, count, &[params.parameter, params.grad, params.momentum])?;
    Ok(over(format!("sgd_{}", dtype_name(dtype)), items, SgdParams { span, ..*params }, device))
}

/// Launched also for a parameter without values: its steps are counted all the same.
pub fn adam(
    dtype: DType,
    count: usize,
    params: &AdamParams,
    device: &CudaDevice,
) -> Result<Option<Launch<AdamParams>>> {
    let addresses = [params.parameter, params.grad, params.first_moment, params.second_moment];
    let (span, items) = span(dtype, count, &addresses)?;
    let launch =
        over(format!("adam_{}", dtype_name(dtype)), items.max(1), AdamParams { span, ..*params }, device);
    // Two bias corrections and the flag of the last block.
    Ok(launch.map(|launch| Launch { shared: 24, ..launch }))
}
