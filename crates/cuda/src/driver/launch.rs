//! One kernel launch, plain, by cluster or cooperative.

use std::ffi::c_void;

use bytemuck::NoUninit;
use cudarc::driver::sys;
use spikenorm_core::Result;

use super::Cuda;
use crate::kit::UnfoldParams;
use crate::launches::Launch;
use crate::params::{NeuNormParams, NormParams};

/// A struct that a kernel takes by value, laid out as in kernels/params.h.
pub(super) trait KernelParams: NoUninit {}
impl KernelParams for NormParams {}
impl KernelParams for NeuNormParams {}
impl KernelParams for UnfoldParams {}

impl Cuda {
    /// Puts `launches` on the stream, in order. What can be known to fail fails before the first of them.
    pub(super) fn launch_all<P: KernelParams>(&self, launches: &[Launch<P>]) -> Result<()> {
        if launches.len() > 1 {
            launches.iter().try_for_each(|launch| self.function(&launch.kernel).map(drop))?;
        }
        launches.iter().try_for_each(|launch| self.launch(launch))
    }

    /// Puts `launch` on the stream. Its addresses must stay allocated until the stream has passed it, which
    /// memory freed on the same stream later does.
    pub(super) fn launch<P: KernelParams>(&self, launch: &Launch<P>) -> Result<()> {
        let function = self.function(&launch.kernel)?;
        // Addresses lie at multiples of eight.
        let words = bytemuck::bytes_of(&launch.params).chunks_exact(8);
        self.stream.uses(words.map(|word| u64::from_ne_bytes(word.try_into().unwrap_or_default())))?;
        let mut attributes = Vec::new();
        if launch.cluster > 1 {
            let mut value = sys::CUlaunchAttributeValue { pad: [0; 64] };
            value.clusterDim =
                sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: launch.cluster as u32, y: 1, z: 1 };
            attributes
                .push(attribute(sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, value));
        }
        if launch.cooperative {
            let mut value = sys::CUlaunchAttributeValue { pad: [0; 64] };
            value.cooperative = 1;
            attributes.push(attribute(sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_COOPERATIVE, value));
        }
        let mut config = sys::CUlaunchConfig {
            gridDimX: launch.blocks as u32,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: launch.threads as u32,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: launch.shared as u32,
            hStream: std::ptr::null_mut(),
            attrs: attributes.as_mut_ptr(),
            numAttrs: attributes.len() as u32,
        };
        let mut params = launch.params;
        let mut arguments: [*mut c_void; 1] = [(&raw mut params).cast()];
        // SAFETY: the kernel takes one argument, the struct of this name (asserted to have the same layout
        // on both sides), which is read before the call returns, as are the configuration and attributes.
        // The addresses in it are of live memory of the sizes the plan asks for: norm.rs, neu_norm.rs
        // and kit/ allocate them on this stream.
        self.stream.submit(&launch.kernel, |raw| unsafe {
            config.hStream = raw;
            sys::cuLaunchKernelEx(
                &raw const config,
                function.cu_function(),
                arguments.as_mut_ptr(),
                std::ptr::null_mut(),
            )
            .result()
        })
    }
}

fn attribute(id: sys::CUlaunchAttributeID, value: sys::CUlaunchAttributeValue) -> sys::CUlaunchAttribute {
    sys::CUlaunchAttribute { id, pad: [0; 4], value }
}
