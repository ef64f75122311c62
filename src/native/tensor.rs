//! Tensors in and out of JavaScript.

use napi_derive::napi;
use spikenorm_core::{Backend, DType, Tensor, bail, element_count, show};

use crate::device::{Device, Place, on_device};
use crate::error::{Checked, Result, face};
use crate::handles::{device_of, insert_tensor, tensor};

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

/// Uploads the bytes of a typed array of the right type. The array comes last: reading an argument may run JavaScript,
/// which may detach memory that a slice has been taken of already.
#[napi]
pub fn tensor_from_bytes(shape: Vec<i64>, dtype: String, device: String, bytes: &[u8]) -> Result<f64> {
    face(|| {
        let (shape, dtype) = (shape_of(&shape)?, DType::from_name(&dtype)?);
        expect_length(bytes.len() / dtype.size(), &shape)?;
        on_device!(Device::from_name(&device)?, backend => {
            Ok(insert_tensor(backend, backend.upload(bytes, &shape, dtype)?))
        })
    })
}

/// Uploads numbers, rounding each once to the dtype. The array comes last, as above.
#[napi]
pub fn tensor_from_numbers(shape: Vec<i64>, dtype: String, device: String, numbers: &[f64]) -> Result<f64> {
    face(|| {
        let (shape, dtype) = (shape_of(&shape)?, DType::from_name(&dtype)?);
        expect_length(numbers.len(), &shape)?;
        on_device!(Device::from_name(&device)?, backend => {
            let wide = backend.upload(bytemuck::cast_slice(numbers), &shape, DType::F64)?;
            Ok(insert_tensor(backend, cast(backend, wide, dtype)?))
        })
    })
}

pub fn expect_length(got: usize, shape: &[usize]) -> Checked<()> {
    let expected = element_count(shape)?;
    if expected != got {
        bail!(Shape, "data: expected {expected} values for shape {}, got {got}", show(shape));
    }
    Ok(())
}

/// New tensor filled with one value.
#[napi]
pub fn tensor_full(shape: Vec<i64>, value: f64, dtype: String, device: String) -> Result<f64> {
    face(|| {
        let (shape, dtype) = (shape_of(&shape)?, DType::from_name(&dtype)?);
        on_device!(Device::from_name(&device)?, backend => {
            let tensor = backend.empty(&shape, dtype)?;
            backend.fill(&tensor, value)?;
            Ok(insert_tensor(backend, tensor))
        })
    })
}

/// Runs a body with the backend and the tensor of a handle.
macro_rules! with_tensor {
    ($handle:expr, ($backend:ident, $tensor:ident) => $body:expr) => {
        on_device!(device_of($handle)?, $backend => {
            let $tensor = tensor($backend, "tensor", $handle)?;
            $body
        })
    };
}

#[napi]
pub fn tensor_shape(handle: f64) -> Result<Vec<i64>> {
    face(|| with_tensor!(handle, (_backend, t) => Ok(t.shape.iter().map(|&extent| extent as i64).collect())))
}

#[napi]
pub fn tensor_dtype(handle: f64) -> Result<&'static str> {
    face(|| with_tensor!(handle, (_backend, t) => Ok(t.dtype.name())))
}

/// `'cpu'` or `'cuda:N'`.
#[napi]
pub fn tensor_device(handle: f64) -> Result<String> {
    face(|| Ok(device_of(handle)?.name()))
}

/// `source` in another dtype; itself where nothing changes.
fn cast<B: Place>(backend: &B, source: Tensor<B::Memory>, dtype: DType) -> Checked<Tensor<B::Memory>> {
    if source.dtype == dtype { Ok(source) } else { copy(backend, &source, dtype) }
}

fn copy<B: Place>(backend: &B, source: &Tensor<B::Memory>, dtype: DType) -> Checked<Tensor<B::Memory>> {
    let target = backend.empty(&source.shape, dtype)?;
    backend.copy(&target, source)?;
    Ok(target)
}

/// A tensor of its own, in another dtype or the same.
#[napi]
pub fn tensor_cast(handle: f64, dtype: String) -> Result<f64> {
    face(|| {
        let dtype = DType::from_name(&dtype)?;
        with_tensor!(handle, (backend, t) => Ok(insert_tensor(backend, copy(backend, &t, dtype)?)))
    })
}

/// A copy on a device.
#[napi]
pub fn tensor_to_device(handle: f64, device: String) -> Result<f64> {
    face(|| {
        let device = Device::from_name(&device)?;
        with_tensor!(handle, (from, t) => {
            if from.device() == device {
                return Ok(insert_tensor(from, copy(from, &t, t.dtype)?));
            }
            on_device!(device, to => {
                let moved = from.read(&t, |bytes| to.upload(bytes, &t.shape, t.dtype))??;
                Ok(insert_tensor(to, moved))
            })
        })
    })
}

/// A view under another shape.
#[napi]
pub fn tensor_reshape(handle: f64, shape: Vec<i64>) -> Result<f64> {
    face(|| {
        let shape = shape_of(&shape)?;
        with_tensor!(handle, (backend, t) => Ok(insert_tensor(backend, t.reshape(&shape)?)))
    })
}

/// A view of row `index` of the leading axis, without that axis.
#[napi]
pub fn tensor_row(handle: f64, index: u32) -> Result<f64> {
    face(|| {
        with_tensor!(handle, (backend, base) => match base.shape.first() {
            Some(&rows) if (index as usize) < rows => {
                let row = base.rows(index as usize, 1).reshape(&base.shape[1..])?;
                Ok(insert_tensor(backend, row))
            }
            _ => bail!(Argument, "row {index} of a tensor of shape {}", show(&base.shape)),
        })
    })
}

/// `target = source`, rounded where dtypes differ, from whatever device. In place.
#[napi]
pub fn tensor_copy(target: f64, source: f64) -> Result<()> {
    face(|| {
        with_tensor!(target, (backend, t) => with_tensor!(source, (from, s) => {
            s.expect_shape("source", &t.shape)?;
            if from.device() == backend.device() {
                let s = tensor(backend, "source", source)?;
                return backend.copy(&t, &s);
            }
            let here = from.read(&s, |bytes| backend.upload(bytes, &s.shape, s.dtype))??;
            backend.copy(&t, &here)
        }))
    })
}

#[napi]
pub fn tensor_fill(target: f64, value: f64) -> Result<()> {
    face(|| with_tensor!(target, (backend, t) => backend.fill(&t, value)))
}

/// Checks that activations and the parameters beside them have dtypes that go together.
pub fn expect_parameter_dtype<M>(what: &str, parameter: &Tensor<M>, activation: DType) -> Checked<()> {
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
pub fn expect_gradient<M>(dy: &Tensor<M>, shape: &[usize], dtype: DType) -> Checked<()> {
    dy.expect_shape("dy", shape)?;
    dy.expect_dtype("dy", dtype)
}
