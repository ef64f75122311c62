//! The training kit as data: how a pass is cut, and its launches and matrix products in order, one file per
//! family.

mod conv;
pub mod elementwise;
mod linear;
pub mod loss;
pub mod neuron;
pub mod optim;
pub mod params;
pub mod pool;
mod product;
mod span;
mod unfold;

pub use conv::{Conv2dAddresses, Conv2dPlan};
pub use linear::{LinearAddresses, LinearPlan};
pub use product::{Matrix, Product, Step};
pub use span::{MOST_BLOCKS_PER_MULTIPROCESSOR, Operand};
pub use unfold::{ChannelSums, UnfoldParams};

use spikenorm_core::norm::CudaDevice;

use crate::launches::Launch;

/// What matrices around the products may take: a fraction of any device's memory, and with a million
/// columns and more the products reach their speed.
pub const SCRATCH_BYTES: usize = 256 << 20;

/// Launches and cuBLAS count places in 32 bits, with a sign.
const MOST_PLACES: usize = (1 << 31) - 1;

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
