//! The devices of this process: what there is, and the one [`Cuda`] of each that is in use.

use std::collections::HashMap;
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{CUdevice_attribute as Attribute, CUresult};
use cudarc::driver::{DriverError, result};
use spikenorm_core::Result;

use super::{Cuda, driver_error, probe};

static OPEN: Mutex<Option<HashMap<usize, Arc<Cuda>>>> = Mutex::new(None);

/// The device of that number, opened when it is first asked for. A failure is not remembered.
pub fn open(ordinal: usize) -> Result<Arc<Cuda>> {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let devices = open.get_or_insert_default();
    if let Some(device) = devices.get(&ordinal) {
        return Ok(Arc::clone(device));
    }
    let device = Arc::new(Cuda::open(ordinal)?);
    devices.insert(ordinal, Arc::clone(&device));
    Ok(device)
}

/// Ends the captures of this thread, on whatever device: for a thread that ends inside of one.
pub fn cancel_captures() {
    let open: Vec<Arc<Cuda>> = {
        let devices = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        devices.iter().flat_map(HashMap::values).cloned().collect()
    };
    for device in open {
        device.cancel_capture();
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    pub index: usize,
    pub name: String,
    /// Total memory in bytes.
    pub memory: usize,
    pub compute_capability: [i32; 2],
}

/// What the driver knows of each device; opens none.
pub fn devices() -> Result<Vec<DeviceInfo>> {
    (0..probe()?).map(info).collect()
}

pub(super) fn info(index: usize) -> Result<DeviceInfo> {
    // A driver too old for a symbol makes cudarc panic rather than fail.
    catch_unwind(|| {
        let device = result::device::get(index as i32)?;
        // SAFETY: the driver has been started by `find_devices`, and has just given this device.
        let (memory, major, minor) = unsafe {
            (
                result::device::total_mem(device)?,
                result::device::get_attribute(
                    device,
                    Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                )?,
                result::device::get_attribute(
                    device,
                    Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
                )?,
            )
        };
        let name = result::device::get_name(device)?;
        Ok(DeviceInfo { index, name, memory, compute_capability: [major, minor] })
    })
    .unwrap_or(Err(DriverError(CUresult::CUDA_ERROR_NOT_SUPPORTED)))
    .map_err(driver_error("reading the device"))
}
