//! One GPU: its context, its stream, the loaded kernels and what plans must fit.

use std::collections::HashMap;
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule};
use cudarc::nvrtc::Ptx;
use spikenorm_core::norm::CudaDevice;
use spikenorm_core::{Error, ErrorCode, Result};

use super::blas::Blas;
use super::plans::Plans;
use super::report::find_devices;
use super::stream::Stream;
use super::words::Words;
use super::{driver_error, pool};
use crate::fatbin;

/// Threads of a block: what the kernels are compiled for.
const THREADS: usize = 512;
/// Largest cluster that every device with clusters can run.
const PORTABLE_CLUSTER: usize = 8;
/// Oldest compute capability of the PTX in a default build.
const OLDEST: (i32, i32) = (7, 5);

pub struct Cuda {
    pub(super) stream: Arc<Stream>,
    pub(super) limits: CudaDevice,
    pub(super) blas: Blas,
    context: Arc<CudaContext>,
    module: Arc<CudaModule>,
    functions: Mutex<HashMap<String, CudaFunction>>,
    pub(super) words: Words,
    pub(super) plans: Plans,
}

/// Number of devices, or why CUDA cannot be used here.
pub fn probe() -> Result<usize> {
    let unavailable = |message: String| Error::new(ErrorCode::CudaUnavailable, format!("CUDA: {message}"));
    fatbin::kernels().map_err(|reason| unavailable(reason.into()))?;
    find_devices().map_err(|(_, message)| unavailable(message))
}

impl Cuda {
    /// A device of its own; [`super::open`] gives the one that a process shares.
    pub fn open(ordinal: usize) -> Result<Self> {
        // As in `probe`.
        catch_unwind(|| Self::open_device(ordinal)).unwrap_or_else(|_| {
            let message = "CUDA: the NVIDIA driver is too old: it lacks a function that is needed";
            Err(Error::new(ErrorCode::CudaUnavailable, message))
        })
    }

    fn open_device(ordinal: usize) -> Result<Self> {
        let count = probe()?;
        if ordinal >= count {
            let message = format!("device: expected cuda:0 to cuda:{}, got cuda:{ordinal}", count - 1);
            return Err(Error::new(ErrorCode::Device, message));
        }
        let context = CudaContext::new(ordinal).map_err(driver_error("opening the device"))?;
        let capability = context.compute_capability().map_err(driver_error("reading the device"))?;
        if capability < OLDEST {
            let (major, minor) = capability;
            let message = format!("CUDA: compute capability {major}.{minor} is older than 7.5");
            return Err(Error::new(ErrorCode::CudaUnavailable, message));
        }
        // SAFETY: with one stream per device there is nothing for events to order.
        unsafe { context.disable_event_tracking() };
        let stream = Arc::new(Stream::new(&context).map_err(driver_error("making a stream"))?);
        pool::keep_memory(&context).map_err(driver_error("setting up the memory pool"))?;
        let image = fatbin::kernels().map_err(|reason| Error::new(ErrorCode::CudaUnavailable, reason))?;
        let module = context.load_module(Ptx::from_binary(image.to_vec())).map_err(|error| {
            let message = format!(
                "CUDA: the kernels do not load: {error} (kernels built by nvcc 13 need driver r580 or later)"
            );
            Error::new(ErrorCode::CudaUnavailable, message)
        })?;
        let limits = limits(&context, &module).map_err(driver_error("reading the device"))?;
        Ok(Self {
            stream,
            limits,
            blas: Blas::default(),
            context,
            module,
            functions: Mutex::default(),
            words: Words::default(),
            plans: Plans::default(),
        })
    }

    pub fn name(&self) -> Result<String> {
        self.context.name().map_err(driver_error("reading the device"))
    }

    /// The device's number.
    pub fn ordinal(&self) -> usize {
        self.context.ordinal()
    }

    /// What plans for this device must fit.
    pub fn limits(&self) -> &CudaDevice {
        &self.limits
    }

    /// Waits until everything launched so far is done, and reports what went wrong in it.
    pub fn synchronize(&self) -> Result<()> {
        self.stream.synchronize()
    }

    /// The kernel of that name, allowed all the shared memory a block can have.
    pub(super) fn function(&self, name: &str) -> Result<CudaFunction> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(name) {
            return Ok(function.clone());
        }
        let function = self.module.load_function(name).map_err(driver_error(name))?;
        let most = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function.set_attribute(most, self.limits.shared_per_block as i32).map_err(driver_error(name))?;
        functions.insert(name.into(), function.clone());
        Ok(function)
    }
}

fn limits(
    context: &CudaContext,
    module: &Arc<CudaModule>,
) -> std::result::Result<CudaDevice, cudarc::driver::DriverError> {
    let read = |attribute| context.attribute(attribute).map(|value| value.max(0) as usize);
    // Clusters are in the machine code, not in PTX of an older architecture compiled for a newer device.
    let has_clusters = context.compute_capability()?.0 >= 9
        && module.load_function("norm_forward_f32_space4")?.ptx_version()? >= 90;
    Ok(CudaDevice {
        multiprocessors: read(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        shared_per_block: read(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        shared_per_multiprocessor: read(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?,
        shared_reserved: read(Attribute::CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK)?,
        threads: THREADS,
        max_cluster: if has_clusters { PORTABLE_CLUSTER } else { 1 },
        cooperative: read(Attribute::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH)? != 0,
    })
}
