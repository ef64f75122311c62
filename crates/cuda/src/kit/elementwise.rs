//! Fill, cast, sum.

use spikenorm_core::norm::CudaDevice;
use spikenorm_core::{DType, Result};

use super::params::{ElementwiseParams, Span};
use super::span::widest;
use super::{Operand, over};
use crate::launches::Launch;
use crate::params::{Address, dtype_name, float_name};

type Elementwise = Option<Launch<ElementwiseParams>>;

fn launch(
    kernel: String,
    count: usize,
    width: usize,
    operands: &[Operand],
    params: ElementwiseParams,
    device: &CudaDevice,
) -> Elementwise {
    let span = Span::new(count, width, operands);
    over(kernel, span.items(width), ElementwiseParams { span, ..params }, device)
}

/// `target = value`, rounded once.
pub fn fill(target: Operand, count: usize, value: f64, device: &CudaDevice) -> Elementwise {
    let params = ElementwiseParams { out: target.address, value, ..Default::default() };
    let kernel = format!("fill_{}", dtype_name(target.dtype));
    launch(kernel, count, widest(target.dtype), &[target], params, device)
}

/// `target = source`, rounded once, of different dtypes.
pub fn cast(target: Operand, source: Operand, count: usize, device: &CudaDevice) -> Elementwise {
    let params = ElementwiseParams { a: source.address, out: target.address, ..Default::default() };
    let kernel = format!("cast_{}_{}", dtype_name(target.dtype), dtype_name(source.dtype));
    let width = widest(target.dtype).min(widest(source.dtype));
    launch(kernel, count, width, &[target, source], params, device)
}

/// `out = a + b`; `out` may be one of them.
pub fn add(
    out: Address,
    [a, b]: [Address; 2],
    dtype: DType,
    count: usize,
    device: &CudaDevice,
) -> Result<Elementwise> {
    let params = ElementwiseParams { a, b, out, ..Default::default() };
    let kernel = format!("add_{}", float_name(dtype)?);
    let operands = [out, a, b].map(|address| Operand::new(address, dtype));
    Ok(launch(kernel, count, widest(dtype), &operands, params, device))
}
