//! The driver's stream-ordered memory pool: allocating, running out, and what is in use.

use cudarc::driver::{CudaContext, DriverError, result, sys};
use spikenorm_core::{Error, ErrorCode, Result};

use super::stream::Stream;
use super::{Cuda, driver_error};

type Driver<T> = std::result::Result<T, DriverError>;

/// Bytes of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryStats {
    /// In tensors, what is saved for backward and scratch memory of this process.
    pub allocated: usize,
    /// The most that was allocated at any time.
    pub peak: usize,
    /// What the pool and the graphs hold, used or kept for later.
    pub reserved: usize,
    /// What the driver could still give to this or another process.
    pub free: usize,
    pub total: usize,
}

fn pool(context: &CudaContext) -> Driver<sys::CUmemoryPool> {
    // SAFETY: the device is the context's, and its default pool lives as long as the device.
    unsafe { result::device::get_default_mem_pool(context.cu_device()) }
}

/// Keeps freed memory in the pool instead of returning it to the driver at every synchronisation.
pub(super) fn keep_memory(context: &CudaContext) -> Driver<()> {
    let mut keep = u64::MAX;
    let threshold = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the attribute takes a 64-bit number, which is read before the call returns.
    unsafe { sys::cuMemPoolSetAttribute(pool(context)?, threshold, (&raw mut keep).cast()).result() }
}

fn reserved(context: &CudaContext) -> Driver<usize> {
    let mut bytes = 0u64;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT;
    // SAFETY: the attribute gives a 64-bit number.
    unsafe { sys::cuMemPoolGetAttribute(pool(context)?, attribute, (&raw mut bytes).cast()).result()? };
    Ok(bytes as usize)
}

fn trim(context: &CudaContext) -> Driver<()> {
    // SAFETY: takes back what nothing uses.
    unsafe { sys::cuMemPoolTrimTo(pool(context)?, 0).result() }
}

impl Stream {
    /// Memory on the stream.
    pub(super) fn allocate(&self, bytes: usize) -> Result<u64> {
        // SAFETY: the stream is alive, its context bound, and the size is not zero.
        self.ask_again("allocating memory", bytes, || unsafe {
            result::malloc_async(self.raw().cu_stream(), bytes)
        })
    }

    /// Asks the driver for memory. Out of memory, waits for what is being freed, gives back what the pool keeps in
    /// pieces of the wrong size, and asks once more.
    pub(super) fn ask_again(&self, what: &str, bytes: usize, ask: impl Fn() -> Driver<u64>) -> Result<u64> {
        match self.submit(what, |_| ask()) {
            Err(error) if error.code == ErrorCode::OutOfMemory => {
                self.synchronize()?;
                self.trim()?;
                self.submit(what, |_| ask()).map_err(|error| self.out_of_memory(error, bytes))
            }
            result => result,
        }
    }

    pub(super) fn trim(&self) -> Result<()> {
        self.submit("giving memory back", |_| trim(self.context()))
    }

    /// Says what was asked for and what there is.
    pub(super) fn out_of_memory(&self, error: Error, bytes: usize) -> Error {
        if error.code != ErrorCode::OutOfMemory {
            return error;
        }
        let (allocated, _) = self.blocks.usage();
        let room = match self.context().mem_get_info() {
            Ok((free, total)) => format!("{} of {} are free", show(free), show(total)),
            Err(_) => "what is free is unknown".into(),
        };
        let message = format!(
            "CUDA: out of memory on cuda:{}: {} were asked for, {room}, {} are in tensors of this process; \
             dispose of tensors, or use a smaller batch",
            self.ordinal(),
            show(bytes),
            show(allocated)
        );
        Error::new(ErrorCode::OutOfMemory, message)
    }

    /// Frees memory of the pool in stream order, or when the capture in progress is over: in a capture it
    /// would become part of the graph.
    pub(super) fn free(&self, address: u64) {
        let turn = self.capture.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        match turn.as_ref() {
            Some(capture) => capture.free_later(address),
            None => self.free_now(address),
        }
    }

    pub(super) fn free_now(&self, address: u64) {
        if self.context().bind_to_thread().is_ok() {
            // SAFETY: allocated on this stream, and the last owner is gone. A failure means that the context is
            // gone, and the memory with it.
            let _ = unsafe { result::free_async(address, self.raw().cu_stream()) };
        }
    }
}

impl Cuda {
    pub fn memory_stats(&self) -> Result<MemoryStats> {
        let (allocated, peak) = self.stream.blocks.usage();
        let context = self.stream.context();
        let reading = || driver_error("reading the memory in use");
        let (free, total) = context.mem_get_info().map_err(reading())?;
        let reserved = reserved(context).map_err(reading())? + self.stream.blocks.in_graphs();
        Ok(MemoryStats { allocated, peak, reserved, free, total })
    }

    /// Counts the peak from what is allocated now.
    pub fn reset_peak_memory(&self) {
        self.stream.blocks.reset_peak();
    }

    /// Gives memory that nothing uses back to the driver, for other processes.
    pub fn empty_cache(&self) -> Result<()> {
        self.stream.synchronize()?;
        self.stream.trim()
    }
}

/// Bytes in words.
fn show(bytes: usize) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}
