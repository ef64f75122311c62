//! Average and maximum pooling.

use spikenorm_core::kit::{Frames, PoolSpec};
use spikenorm_core::norm::CudaDevice;
use spikenorm_core::{DType, Result, bail};

use super::over;
use super::params::PoolParams;
use crate::launches::Launch;
use crate::params::float_name;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    Average,
    Maximum,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    Forward,
    Backward,
}

/// Coordinates are 32 bits in the kernels, and one beyond the padding must fit.
const LARGEST: usize = 1 << 30;

/// What is left for the caller: the addresses.
pub fn params(spec: &PoolSpec, frames: Frames) -> Result<PoolParams> {
    let window = spec.window;
    // No window reaches beyond an image and its padding, which is at most half a window.
    if frames.input.into_iter().chain(window.kernel).any(|extent| extent > LARGEST) {
        bail!(
            Shape,
            "input: expected images and kernels of at most {LARGEST} rows and columns on CUDA, got {} by {} and {} by {}",
            frames.input[0],
            frames.input[1],
            window.kernel[0],
            window.kernel[1]
        );
    }
    let pair = |[vertical, horizontal]: [usize; 2]| [vertical as u32, horizontal as u32];
    Ok(PoolParams {
        planes: (frames.samples * frames.channels) as u64,
        share: 1.0 / (window.kernel[0] * window.kernel[1]) as f64,
        size: pair(frames.input),
        output: pair(frames.output),
        kernel: pair(window.kernel),
        stride: pair(window.stride),
        padding: pair(window.padding),
        index_bytes: spec.index_bytes() as u32,
        ..Default::default()
    })
}

pub fn launch(
    pool: Pool,
    pass: Pass,
    dtype: DType,
    params: &PoolParams,
    device: &CudaDevice,
) -> Result<Option<Launch<PoolParams>>> {
    let name = if pool == Pool::Average { "avg" } else { "max" };
    let (pass, [height, width]) = match pass {
        Pass::Forward => ("forward", params.output),
        Pass::Backward => ("backward", params.size),
    };
    let kernel = format!("{name}_pool2d_{pass}_{}", float_name(dtype)?);
    let values = params.planes as usize * height as usize * width as usize;
    Ok(over(kernel, values, *params, device))
}
