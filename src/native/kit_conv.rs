//! Convolution for JavaScript.

use napi_derive::napi;
use spikenorm_core::bail;
use spikenorm_core::kit::{Conv2dForward, Conv2dSaved, Conv2dSpec, Window};

use crate::device::{Place, on_device};
use crate::error::{Checked, Result, face};
use crate::handles::{
    Handle, device_of, get, insert, insert_optional, insert_saved, insert_tensor, optional_tensor, tensor,
};
use crate::norm::step_mode;
use crate::tensor::{Handles, expect_gradient, expect_parameter_dtype};

/// A sliding window; each field `[vertical, horizontal]`.
#[napi(object)]
pub struct WindowConfig {
    pub kernel_size: Vec<u32>,
    pub stride: Vec<u32>,
    pub padding: Vec<u32>,
}

impl WindowConfig {
    pub fn window(&self) -> Checked<Window> {
        let pair = |name: &str, pair: &[u32]| match *pair {
            [vertical, horizontal] => Ok([vertical as usize, horizontal as usize]),
            _ => bail!(Argument, "{name}: expected [vertical, horizontal], got {pair:?}"),
        };
        Ok(Window {
            kernel: pair("kernelSize", &self.kernel_size)?,
            stride: pair("stride", &self.stride)?,
            padding: pair("padding", &self.padding)?,
        })
    }
}

/// Checks and registers a specification.
#[napi]
pub fn conv2d_spec(in_channels: u32, out_channels: u32, window: WindowConfig) -> Result<u32> {
    face(|| {
        let spec = Conv2dSpec {
            in_channels: in_channels as usize,
            out_channels: out_channels as usize,
            window: window.window()?,
        };
        spec.check()?;
        Ok(insert(spec))
    })
}

/// Forward; `bias` 0 for none. Returns `[y, saved]`, saved 0 without `record`.
#[napi]
pub fn conv2d_forward(
    spec: u32,
    x: u32,
    is_multi: bool,
    weight: u32,
    bias: u32,
    record: bool,
) -> Result<Handles> {
    face(|| on_device!(device_of(x)?, backend => forward(backend, spec, x, is_multi, [weight, bias], record)))
}

fn forward<B: Place>(
    backend: &B,
    spec: Handle,
    x: Handle,
    is_multi: bool,
    [weight, bias]: [Handle; 2],
    record: bool,
) -> Checked<Handles> {
    let spec = get(spec, |spec: &Conv2dSpec| Ok(spec.clone()))?;
    let (x, weight) = (tensor(backend, "input", x)?, tensor(backend, "weight", weight)?);
    let bias = optional_tensor(backend, "bias", bias)?;
    let frames = spec.frames(&x.shape, step_mode(is_multi))?;
    expect_parameter_dtype("weight", &weight, x.dtype)?;
    let call = Conv2dForward { spec: &spec, frames, x: &x, weight: &weight, bias: bias.as_ref(), record };
    let output = backend.conv2d_forward(&call)?;
    Ok(vec![insert_tensor(backend, output.y), insert_saved(backend, output.saved)])
}

/// Backward of a saved forward. Returns `[dx, dweight, dbias]`, 0 where absent.
#[napi]
pub fn conv2d_backward(saved: u32, dy: u32) -> Result<Handles> {
    face(|| on_device!(device_of(saved)?, backend => backward(backend, saved, dy)))
}

fn backward<B: Place>(backend: &B, saved: Handle, dy: Handle) -> Checked<Handles> {
    let dy = tensor(backend, "dy", dy)?;
    let grads = get(saved, |saved: &Conv2dSaved<B::Memory>| {
        expect_gradient(&dy, &saved.output_shape(), saved.x.dtype)?;
        backend.conv2d_backward(saved, &dy, true)
    })?;
    Ok(vec![
        insert_optional(backend, grads.dx),
        insert_tensor(backend, grads.weight),
        insert_optional(backend, grads.bias),
    ])
}
