//! Cross entropy: one launch, a block per sample at a time.

use spikenorm_core::kit::LogitsGrid;
use spikenorm_core::norm::CudaDevice;
use spikenorm_core::{DType, Result};

use super::params::LossParams;
use super::{MOST_BLOCKS_PER_MULTIPROCESSOR, threads};
use crate::launches::Launch;
use crate::params::float_name;

/// What is left for the caller: the addresses.
pub fn params(grid: LogitsGrid, labels: DType) -> LossParams {
    LossParams {
        steps: grid.t as u64,
        samples: grid.n as u64,
        classes: grid.k as u64,
        label_bytes: labels.size() as u32,
        ..Default::default()
    }
}

pub fn launch(logits: DType, params: &LossParams, device: &CudaDevice) -> Result<Launch<LossParams>> {
    // A warp for a few classes, more for many.
    let full = threads(device);
    let threads = (params.classes as usize).next_multiple_of(32).min(full);
    // The smaller the blocks, the more of them share a multiprocessor.
    let most = device.multiprocessors * MOST_BLOCKS_PER_MULTIPROCESSOR * (full / threads);
    Ok(Launch {
        kernel: format!("cross_entropy_{}", float_name(logits)?),
        params: *params,
        blocks: (params.samples as usize).min(most),
        threads,
        cluster: 1,
        cooperative: false,
        // A sum per warp and the flag of the last block.
        shared: 8 * threads / 32 + 4,
    })
}
