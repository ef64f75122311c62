//! The training kit on a device, one file per family: allocate, launch.

mod conv;
mod elementwise;
mod linear;
mod loss;
mod neuron;
mod optim;
mod pool;
mod steps;

use spikenorm_core::Result;

use super::Cuda;
use super::launch::KernelParams;
use crate::kit::params::{AdamParams, ElementwiseParams, LossParams, NeuronParams, PoolParams, SgdParams};
use crate::launches::Launch;

impl KernelParams for ElementwiseParams {}
impl KernelParams for NeuronParams {}
impl KernelParams for PoolParams {}
impl KernelParams for LossParams {}
impl KernelParams for SgdParams {}
impl KernelParams for AdamParams {}

impl Cuda {
    /// Puts `launch` on the stream, where there is anything to do.
    fn launch_any<P: KernelParams>(&self, launch: Option<Launch<P>>) -> Result<()> {
        launch.map_or(Ok(()), |launch| self.launch(&launch))
    }
}
