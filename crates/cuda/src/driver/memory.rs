//! Device memory from the driver's stream-ordered pool.

use std::sync::Arc;

use cudarc::driver::{CudaStream, result};
use spikenorm_core::{DType, Result, Tensor};

use super::{Cuda, driver_error};

/// A block of one device's memory, freed in stream order when it is dropped.
pub struct DeviceMemory {
    address: u64,
    bytes: usize,
    stream: Arc<CudaStream>,
}

impl DeviceMemory {
    pub(super) fn new(stream: &Arc<CudaStream>, bytes: usize) -> Result<Self> {
        stream.context().bind_to_thread().map_err(driver_error("binding the context"))?;
        // SAFETY: the stream is alive and its context is bound. Tensors may be empty, allocations may not.
        let address = unsafe { result::malloc_async(stream.cu_stream(), bytes.max(1)) }
            .map_err(driver_error("allocating memory"))?;
        Ok(Self { address, bytes, stream: Arc::clone(stream) })
    }

    pub(super) fn zeroed(stream: &Arc<CudaStream>, bytes: usize) -> Result<Self> {
        let memory = Self::new(stream, bytes)?;
        // SAFETY: the memory has just been allocated with that many bytes on this stream.
        unsafe { result::memset_d8_async(memory.address, 0, bytes, stream.cu_stream()) }
            .map_err(driver_error("clearing memory"))?;
        Ok(memory)
    }

    pub fn address(&self) -> u64 {
        self.address
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        if self.stream.context().bind_to_thread().is_ok() {
            // SAFETY: allocated on this stream, and the last owner is going. A failure means that the context
            // is gone, and the memory with it.
            let _ = unsafe { result::free_async(self.address, self.stream.cu_stream()) };
        }
    }
}

impl Cuda {
    /// New tensor with unspecified values.
    pub fn empty(&self, shape: &[usize], dtype: DType) -> Result<Tensor<DeviceMemory>> {
        let count: usize = shape.iter().product();
        Ok(Tensor::new(DeviceMemory::new(&self.stream, count * dtype.size())?, shape, dtype))
    }

    /// New tensor from the host's bytes.
    pub fn upload(&self, bytes: &[u8], shape: &[usize], dtype: DType) -> Result<Tensor<DeviceMemory>> {
        let tensor = self.empty(shape, dtype)?;
        debug_assert_eq!(tensor.bytes(), bytes.len());
        if !bytes.is_empty() {
            // SAFETY: the tensor has as many bytes, and `bytes` outlives the wait below.
            unsafe { result::memcpy_htod_async(tensor.memory.address, bytes, self.stream.cu_stream()) }
                .map_err(driver_error("copying to the device"))?;
            self.synchronize()?;
        }
        Ok(tensor)
    }

    /// Copies the values out.
    pub fn download(&self, x: &Tensor<DeviceMemory>) -> Result<Vec<u8>> {
        let mut bytes = vec![0u8; x.bytes()];
        if !bytes.is_empty() {
            self.stream.context().bind_to_thread().map_err(driver_error("binding the context"))?;
            // SAFETY: the tensor's values lie within its memory, and `bytes` outlives the wait below.
            unsafe { result::memcpy_dtoh_async(&mut bytes, address(x), self.stream.cu_stream()) }
                .map_err(driver_error("copying from the device"))?;
            self.synchronize()?;
        }
        Ok(bytes)
    }

    /// A tensor of its own with the same values.
    pub(super) fn duplicate(&self, x: &Tensor<DeviceMemory>) -> Result<Tensor<DeviceMemory>> {
        let copy = self.empty(&x.shape, x.dtype)?;
        // SAFETY: both tensors have that many bytes within their memory and do not overlap.
        unsafe { result::memcpy_dtod_async(address(&copy), address(x), x.bytes(), self.stream.cu_stream()) }
            .map_err(driver_error("copying on the device"))?;
        Ok(copy)
    }
}

/// Where a tensor's first element lies.
pub(super) fn address(x: &Tensor<DeviceMemory>) -> u64 {
    x.memory.address + (x.offset * x.dtype.size()) as u64
}

/// The same for one that may be absent.
pub(super) fn address_of(x: Option<&Tensor<DeviceMemory>>) -> u64 {
    x.map_or(0, address)
}

/// Largest power of two, up to 16, that divides all addresses.
pub(super) fn alignment(addresses: &[u64]) -> usize {
    1 << addresses.iter().fold(16, |all, address| all | address).trailing_zeros()
}
