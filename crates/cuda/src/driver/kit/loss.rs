//! Cross entropy.

use spikenorm_core::kit::{CrossEntropyOutput, LogitsGrid};
use spikenorm_core::{DType, Result, Tensor};

use crate::driver::memory::address;
use crate::driver::{Cuda, DeviceMemory};
use crate::kit::loss;
use crate::kit::params::LossParams;

impl Cuda {
    /// Reports the first label outside the classes.
    pub fn cross_entropy(
        &self,
        grid: LogitsGrid,
        logits: &Tensor<DeviceMemory>,
        labels: &Tensor<DeviceMemory>,
    ) -> Result<CrossEntropyOutput<DeviceMemory>> {
        LogitsGrid::check_labels(labels.dtype)?;
        let report = self.empty(&[3], DType::F64)?;
        let grad = self.empty(&logits.shape, logits.dtype)?;
        let losses = self.empty(&[2, grid.n], DType::F64)?;
        let ticket = self.tickets(1)?;
        let params = LossParams {
            logits: address(logits),
            labels: address(labels),
            grad: address(&grad),
            report: address(&report),
            losses: address(&losses),
            ticket: ticket.address(),
            ..loss::params(grid, labels.dtype)
        };
        self.launch(&loss::launch(logits.dtype, &params, &self.limits)?)?;
        Ok(CrossEntropyOutput { report, grad })
    }
}
