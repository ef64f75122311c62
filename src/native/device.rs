//! The devices a tensor can be on, and how a call finds its backend.

use spikenorm_core::{Backend, bail};
use spikenorm_cpu::Cpu;
use spikenorm_cuda::driver::Cuda;

use crate::error::Checked;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    Cpu,
    Cuda(usize),
}

impl Device {
    /// Reads `'cpu'`, `'cuda'` or `'cuda:N'`.
    pub fn from_name(name: &str) -> Checked<Self> {
        let ordinal = match (name, name.strip_prefix("cuda:")) {
            ("cpu", _) => return Ok(Self::Cpu),
            ("cuda", _) => Some(0),
            (_, Some(digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
            _ => None,
        };
        match ordinal {
            Some(ordinal) => Ok(Self::Cuda(ordinal)),
            None => bail!(Device, "device: expected 'cpu', 'cuda' or 'cuda:N', got '{name}'"),
        }
    }

    /// As in PyTorch, a CUDA device is named with its number.
    pub fn name(self) -> String {
        match self {
            Self::Cpu => "cpu".into(),
            Self::Cuda(ordinal) => format!("cuda:{ordinal}"),
        }
    }
}

/// A backend that knows which device it is.
pub trait Place: Backend<Memory: 'static> {
    fn device(&self) -> Device;
}

impl Place for Cpu {
    fn device(&self) -> Device {
        Device::Cpu
    }
}

impl Place for Cuda {
    fn device(&self) -> Device {
        Device::Cuda(self.ordinal())
    }
}

/// Runs a body, generic over the backend, on a device.
macro_rules! on_device {
    ($device:expr, $backend:ident => $body:expr) => {
        match $device {
            $crate::device::Device::Cpu => {
                let $backend = &spikenorm_cpu::Cpu;
                $body
            }
            $crate::device::Device::Cuda(ordinal) => {
                let cuda = spikenorm_cuda::driver::open(ordinal)?;
                let $backend = &*cuda;
                $body
            }
        }
    };
}
pub(crate) use on_device;
