//! Pooling for JavaScript.

use napi_derive::napi;
use spikenorm_core::kit::{AvgPoolSaved, MaxPoolSaved, PoolSpec};
use spikenorm_core::{Backend, bail};
use spikenorm_cpu::{Cpu, CpuTensor, HostMemory};

use crate::error::{Checked, Result, face};
use crate::handles::{get, insert, insert_tensor, tensor};
use crate::kit_conv::WindowConfig;
use crate::norm::step_mode;
use crate::tensor::{Handles, expect_gradient};

/// Checks and registers a specification, for either kind.
#[napi]
pub fn pool2d_spec(window: WindowConfig) -> Result<u32> {
    face(|| {
        let spec = PoolSpec { window: window.window()? };
        spec.check()?;
        Ok(insert(spec))
    })
}

fn expect_float(x: &CpuTensor) -> Checked<()> {
    if !x.dtype.is_float() {
        bail!(Dtype, "input: expected float64, float32, float16 or bfloat16, got {}", x.dtype.name());
    }
    Ok(())
}

/// Forward. Returns `[y, saved]`, saved 0 without `record`.
#[napi]
pub fn avg_pool2d_forward(spec: u32, x: u32, is_multi: bool, record: bool) -> Result<Handles> {
    face(|| {
        let spec = get(spec, |spec: &PoolSpec| Ok(spec.clone()))?;
        let x = tensor(x)?;
        let frames = spec.frames(&x.shape, step_mode(is_multi))?;
        expect_float(&x)?;
        let y = Cpu.avg_pool2d_forward(&spec, frames, &x)?;
        let saved = AvgPoolSaved { spec, frames, input_shape: x.shape.clone(), dtype: x.dtype };
        Ok(vec![insert_tensor(y), if record { insert(saved) } else { 0 }])
    })
}

/// Backward of a saved forward: dx.
#[napi]
pub fn avg_pool2d_backward(saved: u32, dy: u32) -> Result<u32> {
    face(|| {
        let dy = tensor(dy)?;
        let dx = get(saved, |saved: &AvgPoolSaved| {
            expect_gradient(&dy, &saved.output_shape(), saved.dtype)?;
            Cpu.avg_pool2d_backward(saved, &dy)
        })?;
        Ok(insert_tensor(dx))
    })
}

/// Forward. Returns `[y, saved]`, saved 0 without `record`.
#[napi]
pub fn max_pool2d_forward(spec: u32, x: u32, is_multi: bool, record: bool) -> Result<Handles> {
    face(|| {
        let spec = get(spec, |spec: &PoolSpec| Ok(spec.clone()))?;
        let x = tensor(x)?;
        let frames = spec.frames(&x.shape, step_mode(is_multi))?;
        expect_float(&x)?;
        let output = Cpu.max_pool2d_forward(&spec, frames, &x, record)?;
        Ok(vec![insert_tensor(output.y), output.saved.map_or(0, insert)])
    })
}

/// Backward of a saved forward: dx.
#[napi]
pub fn max_pool2d_backward(saved: u32, dy: u32) -> Result<u32> {
    face(|| {
        let dy = tensor(dy)?;
        let dx = get(saved, |saved: &MaxPoolSaved<HostMemory>| {
            expect_gradient(&dy, &saved.output_shape(), saved.dtype)?;
            Cpu.max_pool2d_backward(saved, &dy)
        })?;
        Ok(insert_tensor(dx))
    })
}
