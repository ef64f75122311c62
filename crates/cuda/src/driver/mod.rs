//! The launcher: the only part of the crate that talks to a GPU, and the only one with `unsafe`.
//!
//! [`Cuda::open`] is lazy and never panics where there is no driver, no device or no kernels in this build:
//! it says which. A device has one stream; memory comes from the driver's stream-ordered pool, so that
//! freeing a tensor needs no synchronisation and a step can be captured in a CUDA graph.

mod arena;
mod backend;
mod blas;
mod capture;
mod device;
mod devices;
mod event;
mod external;
mod kit;
mod launch;
mod memory;
mod neu_norm;
mod norm;
mod pool;
mod stream;
mod transfer;
mod words;

pub use capture::Graph;
pub use device::{Cuda, probe};
pub use devices::{DeviceInfo, devices, open};
pub use event::Event;
pub use memory::DeviceMemory;
pub use pool::MemoryStats;

use cudarc::driver::{DriverError, sys::CUresult};
use spikenorm_core::{Error, ErrorCode};

/// A driver's error with what was being done.
fn driver_error(what: &str) -> impl FnOnce(DriverError) -> Error + '_ {
    move |error| {
        let code = match error.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => ErrorCode::OutOfMemory,
            _ => ErrorCode::Cuda,
        };
        Error::new(code, format!("CUDA: {what}: {error}"))
    }
}
