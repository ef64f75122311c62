//! Values on their way: host to device and back, within a device, between devices.

use std::sync::Arc;

use cudarc::driver::{result, sys};
use spikenorm_core::{DType, Result, Tensor};

use super::memory::address;
use super::{Cuda, DeviceMemory};

/// Uploads up to this size are copied aside so that the host goes on at once; larger ones are waited for,
/// which costs little beside the copy itself.
const STAGED_BYTES: usize = 1 << 20;

impl Cuda {
    /// New tensor from the host's bytes, which are the caller's again when this returns.
    pub fn upload(&self, bytes: &[u8], shape: &[usize], dtype: DType) -> Result<Tensor<DeviceMemory>> {
        // Said before the memory is taken from a graph's.
        self.stream.submit_outside_captures("copying to the device", |_| Ok(()))?;
        let tensor = self.empty(shape, dtype)?;
        debug_assert_eq!(tensor.bytes(), bytes.len());
        let copy = |bytes: &[u8]| {
            // SAFETY: the tensor has as many bytes. A device that reads the host's memory directly may do so
            // until the stream has passed the copy: the bytes outlive that, below.
            self.stream.submit_outside_captures("copying to the device", |raw| unsafe {
                result::memcpy_htod_async(address(&tensor), bytes, raw)
            })
        };
        if bytes.is_empty() {
            return Ok(tensor);
        }
        if bytes.len() <= STAGED_BYTES {
            let staged: Box<[u8]> = bytes.into();
            // The heap does not move with the box.
            copy(&staged)?;
            self.stream.retire(Box::new(staged))?;
        } else {
            copy(bytes)?;
            self.synchronize()?;
        }
        Ok(tensor)
    }

    /// Copies the values out.
    pub fn download(&self, x: &Tensor<DeviceMemory>) -> Result<Vec<u8>> {
        let mut bytes = vec![0u8; x.bytes()];
        if !bytes.is_empty() {
            // SAFETY: the tensor's values lie within its memory, and `bytes` outlives the wait below.
            self.stream.submit_outside_captures("copying from the device", |raw| unsafe {
                result::memcpy_dtoh_async(&mut bytes, address(x), raw)
            })?;
            self.synchronize()?;
        }
        Ok(bytes)
    }

    /// Copies bytes within the device, in stream order.
    pub(super) fn copy_bytes(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        self.stream.uses([to, from])?;
        // SAFETY: both are addresses of that many bytes within live tensors that do not overlap: the callers
        // check their shapes and dtypes.
        self.stream
            .submit("copying on the device", |raw| unsafe { result::memcpy_dtod_async(to, from, bytes, raw) })
    }

    /// A tensor of its own with the same values.
    pub fn duplicate(&self, x: &Tensor<DeviceMemory>) -> Result<Tensor<DeviceMemory>> {
        let copy = self.empty(&x.shape, x.dtype)?;
        if !x.is_empty() {
            self.copy_bytes(address(&copy), address(x), x.bytes())?;
        }
        Ok(copy)
    }

    /// A tensor on this device with the values of one on any device. The host does not wait.
    pub fn receive(&self, x: &Tensor<DeviceMemory>) -> Result<Tensor<DeviceMemory>> {
        let source = x.memory.stream();
        if Arc::ptr_eq(source, &self.stream) {
            return self.duplicate(x);
        }
        let what = "copying between devices";
        for stream in [source, &self.stream] {
            stream.submit_outside_captures(what, |_| Ok(()))?;
        }
        let copy = self.empty(&x.shape, x.dtype)?;
        if x.is_empty() {
            return Ok(copy);
        }
        // The copy waits for the values, and whatever comes after them on their device waits for the copy.
        let ready = source.submit_outside_captures(what, |_| source.raw().record_event(None))?;
        self.stream.submit_outside_captures(what, |raw| {
            self.stream.raw().wait(&ready)?;
            // SAFETY: both tensors have that many bytes within their memory, in the contexts named.
            unsafe {
                sys::cuMemcpyPeerAsync(
                    address(&copy),
                    self.stream.context().cu_ctx(),
                    address(x),
                    source.context().cu_ctx(),
                    x.bytes(),
                    raw,
                )
            }
            .result()
        })?;
        let done = self.stream.submit_outside_captures(what, |_| self.stream.raw().record_event(None))?;
        source.submit_outside_captures(what, |_| source.raw().wait(&done))?;
        Ok(copy)
    }
}
