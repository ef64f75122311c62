//! Threads, memory and devices of the process.

use napi_derive::napi;
use spikenorm_core::bail;

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

#[napi]
pub fn simd_level() -> &'static str {
    spikenorm_cpu::simd_level()
}

/// Bytes of the process's tensors on the CPU.
#[napi(object)]
pub struct HostMemoryStats {
    pub allocated: f64,
    pub cached: f64,
    pub peak: f64,
}

#[napi]
pub fn memory_stats() -> HostMemoryStats {
    let stats = spikenorm_cpu::memory_stats();
    HostMemoryStats {
        allocated: stats.allocated as f64,
        cached: stats.cached as f64,
        peak: stats.peak as f64,
    }
}

#[napi]
pub fn empty_cache() {
    spikenorm_cpu::empty_cache();
}
