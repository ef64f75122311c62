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

/// The CUDA devices found; none without CUDA.
#[napi]
pub fn cuda_devices() -> Result<Vec<CudaDeviceInfo>> {
    face(|| {
        if driver::probe().is_err() {
            return Ok(Vec::new());
        }
        let devices = driver::devices()?.into_iter().map(|device| CudaDeviceInfo {
            index: device.index as u32,
            name: device.name,
            memory: device.memory as f64,
            compute_capability: device.compute_capability.to_vec(),
        });
        Ok(devices.collect())
    })
}

/// Waits until a device has done everything launched so far.
#[napi]
pub fn cuda_synchronize(device: String) -> Result<()> {
    face(|| match Device::from_name(&device)? {
        Device::Cpu => Ok(()),
        Device::Cuda(ordinal) => driver::open(ordinal)?.synchronize(),
    })
}
