//! CUDA devices.

use napi_derive::napi;
use spikenorm_cuda::driver;

use crate::device::{Device, on_device};
use crate::error::{Result, face};

/// Why CUDA cannot be used; absent when it can.
#[napi]
pub fn cuda_unavailable_reason() -> Option<String> {
    driver::probe().err().map(|error| error.message)
}

/// The full name of a device that can be used.
#[napi]
pub fn check_device(name: String) -> Result<String> {
    face(|| {
        let device = Device::from_name(&name)?;
        on_device!(device, _backend => Ok(device.name()))
    })
}

#[napi(object)]
pub struct CudaDeviceInfo {
    pub index: u32,
    pub name: String,
    pub memory: f64,
    pub compute_capability: Vec<i32>,
}
