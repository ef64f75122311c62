//! Convolution for JavaScript.

use napi_derive::napi;
use spikenorm_core::bail;
use spikenorm_core::kit::{Conv2dForward, Conv2dSaved, Conv2dSpec, Window};

use crate::device::{Place, on_device};
use crate::error::{Checked, Result, face};
use crate::handles::{Handle, Made, device_of, get, insert, optional_tensor, tensor};
use crate::norm::step_mode;
use crate::tensor::{expect_gradient, expect_parameter_dtype};

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
pub fn conv2d_spec(in_channels: u32, out_channels: u32, window: WindowConfig) -> Result<f64> {
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

/// Forward; `bias` 0 for none. Makes y and, with `record`, saved.
#[napi]
pub fn conv2d_forward(
    spec: f64,
    x: f64,
    is_multi: bool,
    weight: f64,
    bias: f64,
    record: bool,
) -> Result<f64> {
    face(|| on_device!(device_of(x)?, backend => forward(backend, spec, x, is_multi, [weight, bias], record)))
}

fn forward<B: Place>(
    backend: &B,
    spec: Handle,
    x: Handle,
    is_multi: bool,
    [weight, bias]: [Handle; 2],
    record: bool,
) -> Checked<f64> {
    let spec = get(spec, |spec: &Conv2dSpec| Ok(spec.clone()))?;
    let (x, weight) = (tensor(backend, "input", x)?, tensor(backend, "weight", weight)?);
    let bias = optional_tensor(backend, "bias", bias)?;
    let frames = spec.frames(&x.shape, step_mode(is_multi))?;
    expect_parameter_dtype("weight", &weight, x.dtype)?;
    let call = Conv2dForward { spec: &spec, frames, x: &x, weight: &weight, bias: bias.as_ref(), record };
    let mut made = Made::new()?;
    let output = backend.conv2d_forward(&call)?;
    made.tensor(0, backend, output.y);
    made.saved(1, backend, output.saved);
    Ok(made.number())
}

/// Backward of a saved forward. Makes dx, dweight and dbias, where they are.
#[napi]
pub fn conv2d_backward(saved: f64, dy: f64) -> Result<f64> {
    face(|| on_device!(device_of(saved)?, backend => backward(backend, saved, dy)))
}

fn backward<B: Place>(backend: &B, saved: Handle, dy: Handle) -> Checked<f64> {
    let dy = tensor(backend, "dy", dy)?;
    let mut made = Made::new()?;
    let grads = get(saved, |saved: &Conv2dSaved<B::Memory>| {
        expect_gradient(&dy, &saved.output_shape(), saved.x.dtype)?;
        backend.conv2d_backward(saved, &dy, true)
    })?;
    made.optional_tensor(0, backend, grads.dx);
    made.tensor(1, backend, grads.weight);
    made.optional_tensor(2, backend, grads.bias);
    Ok(made.number())
}
