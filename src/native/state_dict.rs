//! Reading and writing .safetensors files, the format PyTorch models are exchanged in.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use napi_derive::napi;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use spikenorm_core::{Backend, DType, Error, ErrorCode, bail};
use spikenorm_cpu::Cpu;

use crate::device::on_device;
use crate::error::{Checked, Result, face};
use crate::handles::{Handle, device_of, insert_tensor, tensor};

const DTYPES: [(DType, Dtype); 6] = [
    (DType::F64, Dtype::F64),
    (DType::F32, Dtype::F32),
    (DType::F16, Dtype::F16),
    (DType::BF16, Dtype::BF16),
    (DType::U8, Dtype::U8),
    (DType::I64, Dtype::I64),
];

#[napi(object)]
pub struct NamedHandle {
    pub name: String,
    pub handle: f64,
}

fn file_error(path: &str, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::File, format!("{path}: {what}"))
}

/// Loads every tensor of a file.
#[napi]
pub fn load_safetensors(path: String) -> Result<Vec<NamedHandle>> {
    face(|| {
        let bytes = fs::read(&path).map_err(|error| file_error(&path, error))?;
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|error| file_error(&path, format!("not a valid safetensors file: {error}")))?;
        let mut views = file.tensors();
        views.sort_by(|a, b| a.0.cmp(&b.0));
        let mut loaded = Vec::with_capacity(views.len());
        for (name, view) in views {
            let Some(&(dtype, _)) = DTYPES.iter().find(|(_, stored)| *stored == view.dtype()) else {
                bail!(
                    Dtype,
                    "{path}: tensor '{name}' has dtype {:?}, which has no counterpart here",
                    view.dtype()
                );
            };
            loaded.push((name, Cpu.upload(view.data(), view.shape(), dtype)?));
        }
        Ok(loaded
            .into_iter()
            .map(|(name, tensor)| NamedHandle { name, handle: insert_tensor(&Cpu, tensor) })
            .collect())
    })
}

/// Writes tensors to a file, all or nothing: it is written beside its target and then renamed.
#[napi]
pub fn save_safetensors(path: String, names: Vec<String>, handles: Vec<Handle>) -> Result<()> {
    face(|| {
        let mut contents = Vec::with_capacity(names.len());
        for (name, handle) in names.into_iter().zip(handles) {
            on_device!(device_of(handle)?, backend => {
                let tensor = tensor(backend, "tensor", handle)?;
                let bytes = backend.read(&tensor, <[u8]>::to_vec)?;
                contents.push((name, tensor.dtype, tensor.shape.clone(), bytes));
            });
        }
        let views: Checked<Vec<(&str, TensorView<'_>)>> = contents
            .iter()
            .map(|(name, dtype, shape, bytes)| {
                let stored =
                    DTYPES.iter().find(|(own, _)| own == dtype).map_or(Dtype::U8, |(_, stored)| *stored);
                TensorView::new(stored, shape.clone(), bytes)
                    .map(|view| (name.as_str(), view))
                    .map_err(|error| file_error(&path, error))
            })
            .collect();
        // What PyTorch's own writer puts there, and some readers insist on.
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let bytes = serialize(views?, Some(metadata)).map_err(|error| file_error(&path, error))?;
        let beside = format!("{path}.{}.tmp", std::process::id());
        let written = fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, Path::new(&path)));
        written.map_err(|error| {
            // Nothing to add if the half-written file cannot be removed either.
            let _ = fs::remove_file(&beside);
            file_error(&path, error)
        })
    })
}
