//! Values on their way: host to device and back, within a device, between devices.

use std::sync::Arc;

use cudarc::driver::{result, sys};
use spikenorm_core::{DType, Result, Tensor, workspace};

use super::memory::address;
use super::stream::{Stream, Turn};
use super::{Cuda, DeviceMemory, driver_error};

/// Uploads up to this size are copied aside so that the host goes on at once; larger ones are waited for,
/// which costs little beside the copy itself.
const STAGED_BYTES: usize = 1 << 20;

impl Cuda {
    /// New tensor from the host's bytes, which are the caller's again when this returns.
    pub fn upload(&self, bytes: &[u8], shape: &[usize], dtype: DType) -> Result<Tensor<DeviceMemory>> {
        // Said before the memory is taken from a graph's.
        drop(self.stream.turn_outside_captures("copying to the device")?);
        let tensor = self.empty(shape, dtype)?;
        debug_assert_eq!(tensor.bytes(), bytes.len());
        if bytes.is_empty() {
            return Ok(tensor);
        }
        let what = "copying to the device";
        if bytes.len() <= STAGED_BYTES {
            let staged = workspace::copied(bytes)?;
            // SAFETY: the tensor has as many bytes, and the staged ones outlive the copy: submit_with keeps them.
            self.stream.submit_with(what, Box::new(staged), |raw, staged| unsafe {
                result::memcpy_htod_async(address(&tensor), staged.as_slice(), raw)
            })?;
        } else {
            // SAFETY: the tensor has as many bytes, and the caller's outlive the wait. They do not outlive a copy
            // whose wait fails twice, but then the device is lost and runs nothing any more.
            let outcome = self.stream.submit_and_wait(what, |raw| unsafe {
                result::memcpy_htod_async(address(&tensor), bytes, raw)
            });
            outcome.map_err(|unfinished| unfinished.error)?;
        }
        Ok(tensor)
    }

    /// Copies the values out.
    pub fn download(&self, x: &Tensor<DeviceMemory>) -> Result<Vec<u8>> {
        let count = x.bytes();
        let mut bytes = workspace::with_capacity(count)?;
        if count == 0 {
            return Ok(bytes);
        }
        let to = bytes.as_mut_ptr().cast();
        let outcome = self.stream.submit_and_wait("copying from the device", |raw| {
            // SAFETY: the tensor's values lie within its memory and fit what has been reserved; `bytes` outlives
            // the wait, and a copy whose wait fails: it is kept below.
            unsafe { sys::cuMemcpyDtoHAsync_v2(to, address(x), count, raw) }.result()
        });
        match outcome {
            Ok(()) => {
                // SAFETY: the copy has written all of them.
                unsafe { bytes.set_len(count) };
                Ok(bytes)
            }
            Err(unfinished) => {
                if unfinished.may_run {
                    self.stream.keep_until_waited(Box::new(bytes));
                }
                Err(unfinished.error)
            }
        }
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
            drop(stream.turn_outside_captures(what)?);
        }
        let copy = self.empty(&x.shape, x.dtype)?;
        if x.is_empty() {
            return Ok(copy);
        }
        let _turns = both_turns(source, &self.stream, what)?;
        let (to, from) = (self.stream.raw(), source.raw());
        // The copy waits for the values, and whatever comes after them on their device waits for the copy.
        let ready = from.record_event(None).map_err(driver_error(what))?;
        let outcome = to.wait(&ready).and_then(|()| {
            // SAFETY: both tensors have that many bytes within their memory, in the contexts named. What follows
            // on the source's stream, freeing included, waits for the copy; where it cannot, the source is kept.
            let status = unsafe {
                sys::cuMemcpyPeerAsync(
                    address(&copy),
                    self.stream.context().cu_ctx(),
                    address(x),
                    source.context().cu_ctx(),
                    x.bytes(),
                    to.cu_stream(),
                )
            };
            let done = to.record_event(None)?;
            from.wait(&done)?;
            status.result()
        });
        if let Err(error) = outcome {
            self.stream.keep_until_waited(Box::new(x.clone()));
            return Err(driver_error(what)(error));
        }
        Ok(copy)
    }
}

/// A turn on two streams, always taken in the same order.
fn both_turns<'a>(a: &'a Arc<Stream>, b: &'a Arc<Stream>, what: &str) -> Result<[Turn<'a>; 2]> {
    let [first, second] = if Arc::as_ptr(a) < Arc::as_ptr(b) { [a, b] } else { [b, a] };
    Ok([first.turn_outside_captures(what)?, second.turn_outside_captures(what)?])
}
