//! What is there and what is not, for `spikenorm doctor`: it asks for each thing by itself, where [`super::probe`] ends
//! at the first that is missing.

use std::panic::catch_unwind;

use cudarc::driver::{result, sys, sys::CUresult};

use super::devices::{DeviceInfo, info};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverState {
    /// No library, or the stub that the toolkit brings for linking.
    Absent,
    /// A driver that has no device to offer.
    NoDevice,
    /// A driver that does not start, or that cannot describe its devices.
    Broken,
    Ready,
}

/// The NVIDIA driver, whether or not this build has kernels.
#[derive(Debug)]
pub struct DriverReport {
    pub state: DriverState,
    /// Why it is not ready.
    pub problem: Option<String>,
    /// Newest CUDA that the driver serves, major and minor.
    pub cuda: Option<[i32; 2]>,
    pub devices: Vec<DeviceInfo>,
}

/// Number of devices, or what is missing.
pub(super) fn find_devices() -> Result<usize, (DriverState, String)> {
    // SAFETY: loads the driver library by its own name and closes it again; its initialisers are NVIDIA's.
    if !unsafe { sys::is_culib_present() } {
        return Err((DriverState::Absent, "no NVIDIA driver (libcuda) on this machine".into()));
    }
    // A driver too old for a symbol makes cudarc panic rather than fail.
    let count = catch_unwind(|| result::init().and_then(|()| result::device::get_count()))
        .map_err(|_| (DriverState::Broken, "the NVIDIA driver is too old".into()))?
        .map_err(|error| {
            let state = match error.0 {
                CUresult::CUDA_ERROR_STUB_LIBRARY => DriverState::Absent,
                CUresult::CUDA_ERROR_NO_DEVICE => DriverState::NoDevice,
                _ => DriverState::Broken,
            };
            (state, format!("the NVIDIA driver does not start: {error}"))
        })?;
    match count {
        0 => Err((DriverState::NoDevice, "the NVIDIA driver finds no device".into())),
        count => Ok(count as usize),
    }
}

/// Opens no device.
pub fn driver_report() -> DriverReport {
    let found = find_devices();
    let cuda = if matches!(found, Err((DriverState::Absent, _))) { None } else { cuda_version() };
    let described = found.and_then(|count| {
        let devices: spikenorm_core::Result<Vec<_>> = (0..count).map(info).collect();
        devices.map_err(|error| (DriverState::Broken, error.message))
    });
    match described {
        Ok(devices) => DriverReport { state: DriverState::Ready, problem: None, cuda, devices },
        Err((state, problem)) => DriverReport { state, problem: Some(problem), cuda, devices: Vec::new() },
    }
}

fn cuda_version() -> Option<[i32; 2]> {
    let mut version = 0;
    // SAFETY: the driver is there, and the number is there to be written to. A driver that lacks the function makes
    // cudarc panic.
    let status =
        catch_unwind(move || (unsafe { sys::cuDriverGetVersion(&raw mut version) }, version)).ok()?;
    match status {
        (CUresult::CUDA_SUCCESS, version) => Some([version / 1000, version % 1000 / 10]),
        _ => None,
    }
}
