//! CUDA devices.

use napi::Env;
use napi::bindgen_prelude::BigInt;
use napi_derive::napi;
use spikenorm_core::{DType, bail};
use spikenorm_cuda::driver::{self, DriverState, Event, Graph};
use spikenorm_cuda::fatbin;

use crate::device::{Device, on_device};
use crate::error::{Checked, Result, face};
use crate::handles::{device_of, get, insert, insert_tensor, tensor, watch_end};
use crate::tensor::shape_of;

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

impl From<driver::DeviceInfo> for CudaDeviceInfo {
    fn from(device: driver::DeviceInfo) -> Self {
        Self {
            index: device.index as u32,
            name: device.name,
            memory: device.memory as f64,
            compute_capability: device.compute_capability.to_vec(),
        }
    }
}

/// The CUDA devices found; none without CUDA.
#[napi]
pub fn cuda_devices() -> Result<Vec<CudaDeviceInfo>> {
    face(|| {
        if driver::probe().is_err() {
            return Ok(Vec::new());
        }
        Ok(driver::devices()?.into_iter().map(CudaDeviceInfo::from).collect())
    })
}

/// What there is of CUDA, each part by itself: for `spikenorm doctor`.
#[napi(object)]
pub struct CudaReport {
    /// What the kernels of this build are compiled to; none where it has no kernels.
    pub kernels: Vec<String>,
    pub kernels_problem: Option<String>,
    /// 'absent', 'noDevice', 'broken' or 'ready'.
    pub driver: String,
    pub driver_problem: Option<String>,
    /// Newest CUDA that the driver serves, major and minor.
    pub driver_cuda: Option<Vec<i32>>,
    pub devices: Vec<CudaDeviceInfo>,
    /// What cuBLAS was loaded by.
    pub cublas: Option<String>,
    pub cublas_version: Option<Vec<i32>>,
    pub cublas_problem: Option<String>,
}

#[napi]
pub fn cuda_report() -> Result<CudaReport> {
    face(|| {
        let driver = driver::driver_report();
        let blas = driver::blas_report();
        Ok(CudaReport {
            kernels: fatbin::targets().map(String::from).collect(),
            kernels_problem: fatbin::kernels().err().map(String::from),
            driver: match driver.state {
                DriverState::Absent => "absent",
                DriverState::NoDevice => "noDevice",
                DriverState::Broken => "broken",
                DriverState::Ready => "ready",
            }
            .into(),
            driver_problem: driver.problem,
            driver_cuda: driver.cuda.map(Vec::from),
            devices: driver.devices.into_iter().map(CudaDeviceInfo::from).collect(),
            cublas: blas.as_ref().ok().map(|blas| blas.name.clone()),
            cublas_version: blas.as_ref().ok().and_then(|blas| blas.version.map(Vec::from)),
            cublas_problem: blas.err().map(|error| error.message),
        })
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

fn ordinal(device: &str) -> Checked<usize> {
    match Device::from_name(device)? {
        Device::Cuda(ordinal) => Ok(ordinal),
        Device::Cpu => bail!(Device, "device: expected 'cuda' or 'cuda:N', got 'cpu'"),
    }
}

/// A mark on a device's stream.
#[napi]
pub fn cuda_event(device: String) -> Result<f64> {
    face(|| Ok(insert(Event::new(&*driver::open(ordinal(&device)?)?)?)))
}

#[napi]
pub fn cuda_event_record(event: f64) -> Result<()> {
    face(|| get(event, |event: &Event| event.record()))
}

#[napi]
pub fn cuda_event_synchronize(event: f64) -> Result<()> {
    face(|| get(event, |event: &Event| event.synchronize()))
}

/// Milliseconds from one mark to another.
#[napi]
pub fn cuda_event_elapsed(start: f64, end: f64) -> Result<f64> {
    face(|| get(start, |start: &Event| get(end, |end: &Event| start.elapsed_ms(end).map(f64::from))))
}

/// Begins CUDA graph capture: a device's work is recorded, not run, until [`cuda_end_capture`],
/// [`cuda_cancel_capture`] or the end of the environment.
#[napi]
pub fn cuda_begin_capture(env: Env, device: String) -> Result<()> {
    face(|| {
        watch_end(&env)?;
        driver::open(ordinal(&device)?)?.begin_capture()
    })
}

/// The graph of what has been captured.
#[napi]
pub fn cuda_end_capture(device: String) -> Result<f64> {
    face(|| Ok(insert(driver::open(ordinal(&device)?)?.end_capture()?)))
}

/// Forgets what has been captured.
#[napi]
pub fn cuda_cancel_capture(device: String) -> Result<()> {
    face(|| {
        driver::open(ordinal(&device)?)?.cancel_capture();
        Ok(())
    })
}

#[napi]
pub fn cuda_graph_replay(graph: f64) -> Result<()> {
    face(|| get(graph, |graph: &Graph| graph.replay()))
}

/// A tensor over another owner's memory, after what is on `stream` (a CUstream handle) now.
#[napi]
pub fn tensor_from_device_pointer(
    pointer: BigInt,
    shape: Vec<i64>,
    dtype: String,
    device: String,
    stream: Option<BigInt>,
) -> Result<f64> {
    face(|| {
        let (shape, dtype) = (shape_of(&shape)?, DType::from_name(&dtype)?);
        let cuda = driver::open(ordinal(&device)?)?;
        let address = |number: BigInt, what: &str| match number.get_u64() {
            (false, address, true) => Ok(address),
            _ => bail!(Argument, "{what}: expected a 64-bit unsigned integer"),
        };
        let tensor = cuda.external(address(pointer, "ptr")?, &shape, dtype, Box::new(()))?;
        if let Some(stream) = stream {
            cuda.wait_for_stream(address(stream, "stream")?)?;
        }
        Ok(insert_tensor(&*cuda, tensor))
    })
}

/// Address of a tensor's first value on its device, for use after what has been launched so far: on the stream that
/// `cuda_stream` names, or after a synchronisation.
#[napi]
pub fn tensor_device_pointer(handle: f64) -> Result<BigInt> {
    face(|| match device_of(handle)? {
        Device::Cpu => bail!(Device, "devicePointer: expected a tensor on a CUDA device, got one on cpu"),
        Device::Cuda(ordinal) => {
            let cuda = driver::open(ordinal)?;
            let tensor = tensor(&*cuda, "tensor", handle)?;
            let offset = (tensor.offset * tensor.dtype.size()) as u64;
            Ok(BigInt::from(tensor.memory.address() + offset))
        }
    })
}

/// The CUstream handle of the stream that everything on a device goes through.
#[napi]
pub fn cuda_stream(device: String) -> Result<BigInt> {
    face(|| Ok(BigInt::from(driver::open(ordinal(&device)?)?.raw_stream())))
}
