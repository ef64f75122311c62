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
mod plans;
mod pool;
mod report;
mod stream;
mod transfer;
mod words;

pub use blas::{BlasReport, blas_report};
pub use capture::Graph;
pub use device::{Cuda, probe};
pub use devices::{DeviceInfo, cancel_captures, devices, open};
pub use event::Event;
pub use memory::DeviceMemory;
pub use pool::MemoryStats;
pub use report::{DriverReport, DriverState, driver_report};

use cudarc::driver::{DriverError, sys::CUresult};
use spikenorm_core::{Error, ErrorCode};

/// A driver's error with what was being done.
fn driver_error(what: &str) -> impl FnOnce(DriverError) -> Error + '_ {
    move |error| {
        let code = match error.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => ErrorCode::OutOfMemory,
            _ => ErrorCode::Cuda,
        };
        let remedy = if is_fatal(error.0) {
            "; something launched earlier went wrong and the device is lost to this process: start the process again"
        } else {
            ""
        };
        Error::new(code, format!("CUDA: {what}: {error}{remedy}"))
    }
}

/// Errors after which every call of the context fails.
fn is_fatal(code: CUresult) -> bool {
    matches!(
        code,
        CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
            | CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
            | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
            | CUresult::CUDA_ERROR_ASSERT
            | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
            | CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUresult::CUDA_ERROR_INVALID_PC
            | CUresult::CUDA_ERROR_LAUNCH_FAILED
    )
}
