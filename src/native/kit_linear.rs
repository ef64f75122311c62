//! The fully connected layer for JavaScript.

use napi_derive::napi;
use spikenorm_core::Backend;
use spikenorm_core::kit::{LinearForward, LinearSaved, LinearSpec};
use spikenorm_cpu::{Cpu, HostMemory};

use crate::error::{Result, face};
use crate::handles::{get, insert, insert_optional, insert_tensor, optional_tensor, tensor};
use crate::tensor::{Handles, expect_gradient, expect_parameter_dtype};

/// Checks and registers a specification.
#[napi]
pub fn linear_spec(in_features: u32, out_features: u32) -> Result<u32> {
    face(|| {
        let spec = LinearSpec { in_features: in_features as usize, out_features: out_features as usize };
        spec.check()?;
        Ok(insert(spec))
    })
}

/// Forward; `bias` 0 for none. Returns `[y, saved]`, saved 0 without `record`.
#[napi]
pub fn linear_forward(spec: u32, x: u32, weight: u32, bias: u32, record: bool) -> Result<Handles> {
    face(|| {
        let spec = get(spec, |spec: &LinearSpec| Ok(spec.clone()))?;
        let (x, weight, bias) = (tensor(x)?, tensor(weight)?, optional_tensor(bias)?);
        let rows = spec.rows(&x.shape)?;
        expect_parameter_dtype("weight", &weight, x.dtype)?;
        let call = LinearForward { spec: &spec, rows, x: &x, weight: &weight, bias: bias.as_ref(), record };
        let output = Cpu.linear_forward(&call)?;
        Ok(vec![insert_tensor(output.y), output.saved.map_or(0, insert)])
    })
}

/// Backward of a saved forward. Returns `[dx, dweight, dbias]`, 0 where absent.
#[napi]
pub fn linear_backward(saved: u32, dy: u32) -> Result<Handles> {
    face(|| {
        let dy = tensor(dy)?;
        let grads = get(saved, |saved: &LinearSaved<HostMemory>| {
            expect_gradient(&dy, &saved.spec.output_shape(&saved.x.shape), saved.x.dtype)?;
            Cpu.linear_backward(saved, &dy, true)
        })?;
        Ok(vec![insert_optional(grads.dx), insert_tensor(grads.weight), insert_optional(grads.bias)])
    })
}
