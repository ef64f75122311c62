//! Reading and writing .safetensors files, the format PyTorch models are exchanged in.

mod dtype;
mod read;
mod write;

use std::collections::{BTreeMap, HashMap};

use napi_derive::napi;

use crate::error::{Result, face};
use crate::handles::{Handle, insert_tensor};
use spikenorm_cpu::Cpu;

/// The format's own limit, which every reader has.
const MOST_HEADER_BYTES: u64 = 100_000_000;

#[napi(object)]
pub struct NamedHandle {
    pub name: String,
    pub handle: f64,
}

#[napi(object)]
pub struct MetadataEntry {
    pub key: String,
    pub value: String,
}

/// Loads every tensor of a file, by name; with `skip_unsupported` without those whose dtype has no counterpart.
#[napi]
pub fn load_safetensors(path: String, skip_unsupported: bool) -> Result<Vec<NamedHandle>> {
    face(|| {
        let loaded = read::SafetensorsFile::open(&path)?.tensors(skip_unsupported)?;
        Ok(loaded
            .into_iter()
            .map(|(name, tensor)| NamedHandle { name, handle: insert_tensor(&Cpu, tensor) })
            .collect())
    })
}

/// What a file says of itself under `__metadata__`.
#[napi]
pub fn load_safetensors_metadata(path: String) -> Result<Vec<MetadataEntry>> {
    face(|| {
        let file = read::SafetensorsFile::open(&path)?;
        let sorted: BTreeMap<_, _> = file.metadata().into_iter().collect();
        Ok(sorted.into_iter().map(|(key, value)| MetadataEntry { key, value }).collect())
    })
}

/// Writes tensors to a file, all or nothing. Names are checked by the caller.
#[napi]
pub fn save_safetensors(
    path: String,
    names: Vec<String>,
    handles: Vec<Handle>,
    metadata: HashMap<String, String>,
) -> Result<()> {
    face(|| write::save(&path, names, handles, metadata.into_iter().collect()))
}
