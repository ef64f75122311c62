//! Tensors in and out of JavaScript.

use napi::Env;
use napi::bindgen_prelude::ArrayBuffer;
use napi_derive::napi;
use spikenorm_core::{Backend, DType, bail, element_count, show};
use spikenorm_cpu::{Cpu, CpuTensor};

use crate::error::{Checked, Result, face, napi_failure};
use crate::handles::{Handle, get, insert_tensor, replace_tensor, tensor};

pub fn shape_of(shape: &[i64]) -> Checked<Vec<usize>> {
    let mut extents = Vec::with_capacity(shape.len());
    for &extent in shape {
        match usize::try_from(extent) {
            Ok(extent) => extents.push(extent),
            Err(_) => bail!(Shape, "shape: expected non-negative integers, got {shape:?}"),
        }
    }
    element_count(&extents)?;
    Ok(extents)
}

/// Uploads the bytes of a typed array of the right type.
#[napi]
pub fn tensor_from_bytes(bytes: &[u8], shape: Vec<i64>, dtype: String) -> Result<u32> {
    face(|| {
        let (shape, dtype) = (shape_of(&shape)?, DType::from_name(&dtype)?);
        expect_length(bytes.len() / dtype.size(), &shape)?;
        Ok(insert_tensor(Cpu.upload(bytes, &shape, dtype)?))
    })
}

/// Uploads numbers, rounding each once to the dtype.
#[napi]
pub fn tensor_from_numbers(numbers: &[f64], shape: Vec<i64>, dtype: String) -> Result<u32> {
    face(|| {
        let (shape, dtype) = (shape_of(&shape)?, DType::from_name(&dtype)?);
        expect_length(numbers.len(), &shape)?;
        let wide = Cpu.upload(bytemuck::cast_slice(numbers), &shape, DType::F64)?;
        Ok(insert_tensor(cast(&wide, dtype)?))
    })
}

fn expect_length(got: usize, shape: &[usize]) -> Checked<()> {
    let expected = element_count(shape)?;
    if expected != got {
        bail!(Shape, "data: expected {expected} values for shape {}, got {got}", show(shape));
    }
    Ok(())
}

/// New tensor filled with one value.
#[napi]
pub fn tensor_full(shape: Vec<i64>, value: f64, dtype: String) -> Result<u32> {
    face(|| {
        let tensor = Cpu.empty(&shape_of(&shape)?, DType::from_name(&dtype)?)?;
        Cpu.fill(&tensor, value)?;
        Ok(insert_tensor(tensor))
    })
}

#[napi]
pub fn tensor_shape(handle: u32) -> Result<Vec<i64>> {
    face(|| get(handle, |t: &CpuTensor| Ok(t.shape.iter().map(|&extent| extent as i64).collect())))
}

#[napi]
pub fn tensor_dtype(handle: u32) -> Result<&'static str> {
    face(|| get(handle, |t: &CpuTensor| Ok(t.dtype.name())))
}

/// The values' bytes, copied into an ArrayBuffer of V8's.
#[napi]
pub fn tensor_read(env: Env, handle: u32) -> Result<ArrayBuffer<'static>> {
    face(|| {
        let tensor = tensor(handle)?;
        let size = tensor.dtype.size();
        let memory = tensor.memory.read()?;
        let bytes = memory.slice::<u8>(tensor.offset * size, tensor.len() * size);
        ArrayBuffer::copy_from(&env, bytes).map_err(napi_failure)
    })
}

fn cast(source: &CpuTensor, dtype: DType) -> Checked<CpuTensor> {
    let target = Cpu.empty(&source.shape, dtype)?;
    Cpu.copy(&target, source)?;
    Ok(target)
}

/// A tensor of its own, in another dtype or the same.
#[napi]
pub fn tensor_cast(handle: u32, dtype: String) -> Result<u32> {
    face(|| Ok(insert_tensor(cast(&tensor(handle)?, DType::from_name(&dtype)?)?)))
}

/// A view under another shape.
#[napi]
pub fn tensor_reshape(handle: u32, shape: Vec<i64>) -> Result<u32> {
    face(|| Ok(insert_tensor(tensor(handle)?.reshape(&shape_of(&shape)?)?)))
}

/// A view of row `index` of the leading axis, without that axis.
#[napi]
pub fn tensor_row(handle: u32, index: u32) -> Result<u32> {
    face(|| {
        let base = tensor(handle)?;
        match base.shape.first() {
            Some(&rows) if (index as usize) < rows => {
                let row = base.rows(index as usize, 1);
                Ok(insert_tensor(row.reshape(&base.shape[1..])?))
            }
            _ => bail!(Argument, "row {index} of a tensor of shape {}", show(&base.shape)),
        }
    })
}

/// `target = source`, rounded where dtypes differ. In place.
#[napi]
pub fn tensor_copy(target: u32, source: u32) -> Result<()> {
    face(|| {
        let (target, source) = (tensor(target)?, tensor(source)?);
        source.expect_shape("source", &target.shape)?;
        Cpu.copy(&target, &source)
    })
}

/// `target += source`. In place.
#[napi]
pub fn tensor_accumulate(target: u32, source: u32) -> Result<()> {
    face(|| {
        let (target, source) = (tensor(target)?, tensor(source)?);
        source.expect_shape("source", &target.shape)?;
        source.expect_dtype("source", target.dtype)?;
        Cpu.accumulate(&target, &source)
    })
}

#[napi]
pub fn tensor_fill(target: u32, value: f64) -> Result<()> {
    face(|| Cpu.fill(&tensor(target)?, value))
}

/// Makes `target` another name of `source`'s memory: how a parameter keeps its identity when its module
/// changes dtype.
#[napi]
pub fn tensor_replace(target: u32, source: u32) -> Result<()> {
    face(|| replace_tensor(target, tensor(source)?))
}

/// Checks that activations and the parameters beside them have dtypes that go together.
pub fn expect_parameter_dtype(what: &str, parameter: &CpuTensor, activation: DType) -> Checked<()> {
    if !activation.is_float() {
        bail!(Dtype, "input: expected float64, float32, float16 or bfloat16, got {}", activation.name());
    }
    if parameter.dtype != activation.parameter() {
        bail!(
            Dtype,
            "input: expected {} beside a {what} of {}, got {}; convert the input or call module.to('{}')",
            if parameter.dtype == DType::F64 { "float64" } else { "float32, float16 or bfloat16" },
            parameter.dtype.name(),
            activation.name(),
            activation.parameter().name()
        );
    }
    Ok(())
}

/// A gradient must look like the output it belongs to.
pub fn expect_gradient(dy: &CpuTensor, shape: &[usize], dtype: DType) -> Checked<()> {
    dy.expect_shape("dy", shape)?;
    dy.expect_dtype("dy", dtype)
}

pub type Handles = Vec<Handle>;
