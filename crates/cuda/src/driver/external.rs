//! Memory and streams of other libraries in the same process.

use cudarc::driver::{CudaEvent, DriverError, result, sys};
use spikenorm_core::{DType, Result, Tensor, bail, element_count};

use super::memory::Source;
use super::{Cuda, DeviceMemory};

/// What the driver knows about an address.
fn attribute<T: Default>(
    address: u64,
    which: sys::CUpointer_attribute,
) -> std::result::Result<T, DriverError> {
    let mut value = T::default();
    // SAFETY: each caller below asks for an attribute of the type it names.
    unsafe { sys::cuPointerGetAttribute((&raw mut value).cast(), which, address) }.result()?;
    Ok(value)
}

impl Cuda {
    /// A tensor over memory of another owner on this device. `keep_alive` is dropped when neither a tensor nor
    /// the stream uses the memory any more. What the owner has launched must have been waited for
    /// ([`Self::wait_for_stream`]).
    pub fn external(
        &self,
        address: u64,
        shape: &[usize],
        dtype: DType,
        keep_alive: Box<dyn std::any::Any + Send + Sync>,
    ) -> Result<Tensor<DeviceMemory>> {
        let bytes = element_count(shape)? * dtype.size();
        if bytes > 0 {
            self.check_pointer(address, bytes, dtype)?;
        }
        // Memory of this library's own stays for as long as what looks at it.
        let allocation = self.stream.blocks.find_allocation(address).filter(|_| bytes > 0);
        if let Some(allocation) = &allocation {
            let left = allocation.bytes - (address - allocation.address) as usize;
            if left < bytes {
                bail!(
                    Argument,
                    "pointer: expected {bytes} bytes from {address:#x}, its tensor's memory ends after {left}"
                );
            }
        }
        let source = Source::External { owner: Some(keep_alive), _allocation: allocation };
        let memory = DeviceMemory::of(&self.stream, address, bytes, source);
        Ok(Tensor::new(memory, shape, dtype))
    }

    fn check_pointer(&self, address: u64, bytes: usize, dtype: DType) -> Result<()> {
        use sys::CUpointer_attribute as Attribute;
        self.stream.submit("looking at a pointer", |_| Ok(()))?;
        let device = u32::from(sys::CUmemorytype::CU_MEMORYTYPE_DEVICE as u16);
        match attribute::<u32>(address, Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE) {
            Ok(kind) if kind == device => {}
            _ => bail!(
                Argument,
                "pointer: expected the address of CUDA memory, got {address:#x}, which is none"
            ),
        }
        let ordinal = attribute::<i32>(address, Attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL);
        match ordinal {
            Ok(ordinal) if ordinal == self.ordinal() as i32 => {}
            Ok(ordinal) => {
                bail!(
                    Device,
                    "pointer: expected memory of cuda:{}, got memory of cuda:{ordinal}",
                    self.ordinal()
                )
            }
            Err(error) => return Err(super::driver_error("looking at a pointer")(error)),
        }
        if !address.is_multiple_of(dtype.size() as u64) {
            bail!(
                Argument,
                "pointer: expected an address that is a multiple of {} for {}, got {address:#x}",
                dtype.size(),
                dtype.name()
            );
        }
        // Not every kind of memory has a range to tell.
        let start = attribute::<u64>(address, Attribute::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR);
        let size = attribute::<usize>(address, Attribute::CU_POINTER_ATTRIBUTE_RANGE_SIZE);
        if let (Ok(start), Ok(size)) = (start, size) {
            let left = (start + size as u64).saturating_sub(address);
            if left < bytes as u64 {
                bail!(
                    Argument,
                    "pointer: expected {bytes} bytes from {address:#x}, its allocation ends after {left}"
                );
            }
        }
        Ok(())
    }

    /// The handle (CUstream) of the stream that everything on this device goes through.
    pub fn raw_stream(&self) -> u64 {
        self.stream.raw().cu_stream() as u64
    }

    /// What is launched on this device from now on waits for what is on another library's stream, given as its
    /// CUstream handle; 0 is the legacy default stream. The handle must be of a live stream of this device.
    pub fn wait_for_stream(&self, other: u64) -> Result<()> {
        self.stream.submit_outside_captures("waiting for another stream", |raw| {
            let event = self.event()?;
            // SAFETY: the caller vouches for the other stream; ours is alive, as is the event.
            unsafe {
                result::event::record(event.cu_event(), other as sys::CUstream)?;
                wait(raw, &event)
            }
        })
    }

    /// The reverse: the other stream waits for everything launched on this device so far.
    pub fn let_stream_wait(&self, other: u64) -> Result<()> {
        self.stream.submit_outside_captures("letting another stream wait", |raw| {
            let event = self.event()?;
            // SAFETY: as above.
            unsafe {
                result::event::record(event.cu_event(), raw)?;
                wait(other as sys::CUstream, &event)
            }
        })
    }

    fn event(&self) -> std::result::Result<CudaEvent, DriverError> {
        self.stream.context().new_event(None)
    }
}

/// # Safety
/// The stream must be alive. The event may go when this returns: the driver keeps what was recorded.
unsafe fn wait(stream: sys::CUstream, event: &CudaEvent) -> std::result::Result<(), DriverError> {
    let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
    // SAFETY: the caller's stream and event are alive.
    unsafe { result::stream::wait_event(stream, event.cu_event(), flags) }
}
