//! Optimiser steps.

use spikenorm_core::kit::{AdamStep, SgdStep};
use spikenorm_core::{DType, Result, Tensor};

use crate::driver::memory::{address, address_of};
use crate::driver::{Cuda, DeviceMemory};
use crate::kit::optim;
use crate::kit::params::{AdamParams, SgdParams};

/// The kernels walk the parameter's values in each of `others`.
fn expect_alike(parameter: &Tensor<DeviceMemory>, others: &[(&str, &Tensor<DeviceMemory>)]) -> Result<()> {
    others.iter().try_for_each(|(what, other)| {
        other.expect_shape(what, &parameter.shape)?;
        other.expect_dtype(what, parameter.dtype)
    })
}

impl Cuda {
    /// Moves the parameter and its momentum in place.
    pub fn sgd_step(&self, call: &SgdStep<'_, DeviceMemory>) -> Result<()> {
        let parameter = call.parameter;
        expect_alike(parameter, &[("gradient", call.grad)])?;
        if let Some(momentum) = call.momentum {
            expect_alike(parameter, &[("momentum", momentum)])?;
        }
        let params = SgdParams {
            parameter: address(parameter),
            grad: address(call.grad),
            momentum: address_of(call.momentum),
            ..optim::sgd_params(call.spec, call.first)
        };
        self.launch_any(optim::sgd(parameter.dtype, parameter.len(), &params, &self.limits)?)
    }

    /// Moves the parameter, its moments and its count of steps in place.
    pub fn adam_step(&self, call: &AdamStep<'_, DeviceMemory>) -> Result<()> {
        let parameter = call.parameter;
        let others =
            [("gradient", call.grad), ("exp_avg", call.first_moment), ("exp_avg_sq", call.second_moment)];
        expect_alike(parameter, &others)?;
        call.step.expect_shape("step", &[])?;
        call.step.expect_dtype("step", DType::I64)?;
        let ticket = self.tickets(1)?;
        let params = AdamParams {
            parameter: address(parameter),
            grad: address(call.grad),
            first_moment: address(call.first_moment),
            second_moment: address(call.second_moment),
            step: address(call.step),
            ticket: ticket.address(),
            ..optim::adam_params(call.spec)
        };
        self.launch_any(optim::adam(parameter.dtype, parameter.len(), &params, &self.limits)?)
    }
}
