//! The training kit's launches as data: parameters and grid of every operation, one file per family.

pub mod elementwise;
pub mod loss;
pub mod neuron;
pub mod optim;
pub mod params;
pub mod pool;
mod span;

pub use span::{MOST_BLOCKS_PER_MULTIPROCESSOR, Operand};

use spikenorm_core::norm::CudaDevice;

use crate::launches::Launch;

/// Threads of a block, where the device has them.
const THREADS: usize = 256;

fn threads(device: &CudaDevice) -> usize {
    device.threads.min(THREADS)
}

/// The launch of a kernel whose threads take turns over `items`: no more blocks than keep the device busy, however
/// many items there are. `None` where there are none.
fn over<P>(kernel: String, items: usize, params: P, device: &CudaDevice) -> Option<Launch<P>> {
    let threads = threads(device);
    let most = device.multiprocessors * MOST_BLOCKS_PER_MULTIPROCESSOR;
    (items > 0).then(|| Launch {
        kernel,
        params,
        blocks: items.div_ceil(threads).min(most),
        threads,
        cluster: 1,
        cooperative: false,
        shared: 0,
    })
}
