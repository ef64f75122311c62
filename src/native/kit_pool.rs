//! Pooling for JavaScript.

use napi_derive::napi;
use spikenorm_core::kit::{AvgPoolSaved, Frames, MaxPoolSaved, PoolSpec};
use spikenorm_core::{Backend, Tensor, bail};

use crate::device::{Place, on_device};
use crate::error::{Checked, Result, face};
use crate::handles::{Handle, device_of, get, insert, insert_saved, insert_tensor, tensor};
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

/// An input and what a window makes of it.
struct Call<M> {
    spec: PoolSpec,
    x: Tensor<M>,
    frames: Frames,
}

fn call<B: Place>(backend: &B, spec: Handle, x: Handle, is_multi: bool) -> Checked<Call<B::Memory>> {
    let spec = get(spec, |spec: &PoolSpec| Ok(spec.clone()))?;
    let x = tensor(backend, "input", x)?;
    let frames = spec.frames(&x.shape, step_mode(is_multi))?;
    if !x.dtype.is_float() {
        bail!(Dtype, "input: expected float64, float32, float16 or bfloat16, got {}", x.dtype.name());
    }
    Ok(Call { spec, x, frames })
}

/// Forward. Returns `[y, saved]`, saved 0 without `record`.
#[napi]
pub fn avg_pool2d_forward(spec: u32, x: u32, is_multi: bool, record: bool) -> Result<Handles> {
    face(|| {
        on_device!(device_of(x)?, backend => {
            let Call { spec, x, frames } = call(backend, spec, x, is_multi)?;
            let y = backend.avg_pool2d_forward(&spec, frames, &x)?;
            let saved = AvgPoolSaved { spec, frames, input_shape: x.shape.clone(), dtype: x.dtype };
            Ok(vec![insert_tensor(backend, y), insert_saved(backend, record.then_some(saved))])
        })
    })
}

/// Backward of a saved forward: dx.
#[napi]
pub fn avg_pool2d_backward(saved: u32, dy: u32) -> Result<u32> {
    face(|| {
        on_device!(device_of(saved)?, backend => {
            let dy = tensor(backend, "dy", dy)?;
            let dx = get(saved, |saved: &AvgPoolSaved| {
                expect_gradient(&dy, &saved.output_shape(), saved.dtype)?;
                backend.avg_pool2d_backward(saved, &dy)
            })?;
            Ok(insert_tensor(backend, dx))
        })
    })
}

/// Forward. Returns `[y, saved]`, saved 0 without `record`.
#[napi]
pub fn max_pool2d_forward(spec: u32, x: u32, is_multi: bool, record: bool) -> Result<Handles> {
    face(|| {
        on_device!(device_of(x)?, backend => {
            let Call { spec, x, frames } = call(backend, spec, x, is_multi)?;
            let output = backend.max_pool2d_forward(&spec, frames, &x, record)?;
            Ok(vec![insert_tensor(backend, output.y), insert_saved(backend, output.saved)])
        })
    })
}

/// Backward of a saved forward: dx.
#[napi]
pub fn max_pool2d_backward(saved: u32, dy: u32) -> Result<u32> {
    face(|| on_device!(device_of(saved)?, backend => max_pool2d_backward_on(backend, saved, dy)))
}

fn max_pool2d_backward_on<B: Place>(backend: &B, saved: Handle, dy: Handle) -> Checked<Handle> {
    let dy = tensor(backend, "dy", dy)?;
    let dx = get(saved, |saved: &MaxPoolSaved<B::Memory>| {
        expect_gradient(&dy, &saved.output_shape(), saved.dtype)?;
        backend.max_pool2d_backward(saved, &dy)
    })?;
    Ok(insert_tensor(backend, dx))
}
