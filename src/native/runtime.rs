//! Threads, memory and devices of the process.

use napi_derive::napi;
use spikenorm_core::bail;
use spikenorm_cuda::driver;

use crate::device::Device;
use crate::error::{Result, face};

#[napi]
pub fn set_num_threads(threads: f64) -> Result<()> {
    face(|| {
        if threads.fract() != 0.0 || !(1.0..=1024.0).contains(&threads) {
            bail!(Argument, "setNumThreads: expected a whole number from 1 to 1024, got {threads}");
        }
        spikenorm_cpu::set_num_threads(threads as usize)
    })
}

#[napi]
pub fn num_threads() -> Result<u32> {
    face(|| spikenorm_cpu::num_threads().map(|threads| threads as u32))
}

/// Version of the addon, which the package beside it should have too.
#[napi]
pub fn addon_version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

#[napi]
pub fn simd_level() -> &'static str {
    spikenorm_cpu::simd_level()
}

/// Bytes of the process's tensors on a device.
#[napi(object)]
pub struct DeviceMemoryStats {
    pub allocated: f64,
    pub cached: f64,
    pub peak: f64,
}

#[napi]
pub fn memory_stats(device: String) -> Result<DeviceMemoryStats> {
    face(|| {
        let [allocated, cached, peak] = match Device::from_name(&device)? {
            Device::Cpu => {
                let stats = spikenorm_cpu::memory_stats();
                [stats.allocated, stats.cached, stats.peak]
            }
            Device::Cuda(ordinal) => {
                let stats = driver::open(ordinal)?.memory_stats()?;
                [stats.allocated, stats.reserved.saturating_sub(stats.allocated), stats.peak]
            }
        };
        Ok(DeviceMemoryStats { allocated: allocated as f64, cached: cached as f64, peak: peak as f64 })
    })
}

#[napi]
pub fn empty_cache(device: String) -> Result<()> {
    face(|| match Device::from_name(&device)? {
        Device::Cpu => {
            spikenorm_cpu::empty_cache();
            Ok(())
        }
        Device::Cuda(ordinal) => driver::open(ordinal)?.empty_cache(),
    })
}
