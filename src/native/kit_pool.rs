//! Pooling for JavaScript.

use napi_derive::napi;
use spikenorm_core::kit::{AvgPoolSaved, Frames, MaxPoolSaved, PoolSpec};
use spikenorm_core::{Backend, Tensor, bail};

use crate::device::{Place, on_device};
use crate::error::{Checked, Result, face};
use crate::handles::{Handle, Made, device_of, get, insert, insert_tensor, tensor};
use crate::kit_conv::WindowConfig;
use crate::norm::step_mode;
use crate::tensor::expect_gradient;

/// Checks and registers a specification, for either kind.
#[napi]
pub fn pool2d_spec(window: WindowConfig) -> Result<f64> {
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

/// Forward. Makes y and, with `record`, saved.
#[napi]
pub fn avg_pool2d_forward(spec: f64, x: f64, is_multi: bool, record: bool) -> Result<f64> {
    face(|| {
        on_device!(device_of(x)?, backend => {
            let Call { spec, x, frames } = call(backend, spec, x, is_multi)?;
            let mut made = Made::new()?;
            let y = backend.avg_pool2d_forward(&spec, frames, &x)?;
            let saved = AvgPoolSaved { spec, frames, input_shape: x.shape.clone(), dtype: x.dtype };
            made.tensor(0, backend, y);
            made.saved(1, backend, record.then_some(saved));
            Ok(made.number())
        })
    })
}

/// Backward of a saved forward: dx.
#[napi]
pub fn avg_pool2d_backward(saved: f64, dy: f64) -> Result<f64> {
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

/// Forward. Makes y and, with `record`, saved.
#[napi]
pub fn max_pool2d_forward(spec: f64, x: f64, is_multi: bool, record: bool) -> Result<f64> {
    face(|| {
        on_device!(device_of(x)?, backend => {
            let Call { spec, x, frames } = call(backend, spec, x, is_multi)?;
            let mut made = Made::new()?;
            let output = backend.max_pool2d_forward(&spec, frames, &x, record)?;
            made.tensor(0, backend, output.y);
            made.saved(1, backend, output.saved);
            Ok(made.number())
        })
    })
}

/// Backward of a saved forward: dx.
#[napi]
pub fn max_pool2d_backward(saved: f64, dy: f64) -> Result<f64> {
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
