//! Writes files one tensor after another, without a copy of them.

use std::collections::BTreeMap;

use safetensors::tensor::{Metadata, TensorInfo};
use spikenorm_core::{Backend, Error, ErrorCode, bail};

use super::MOST_HEADER_BYTES;
use super::dtype::stored_as;
use crate::device::on_device;
use crate::error::Checked;
use crate::handles::{Handle, device_of, tensor};
use crate::regular_file::{file_error, replace};

/// The header is padded to this, so that what follows is aligned.
const ALIGNMENT: usize = 8;

struct Entry {
    name: String,
    handle: Handle,
    dtype: safetensors::Dtype,
    shape: Vec<usize>,
    bytes: usize,
}

pub fn save(
    path: &str,
    names: Vec<String>,
    handles: Vec<Handle>,
    metadata: BTreeMap<String, String>,
) -> Checked<()> {
    let mut entries = Vec::with_capacity(names.len());
    for (name, handle) in names.into_iter().zip(handles) {
        on_device!(device_of(handle)?, backend => {
            let t = tensor(backend, "tensor", handle)?;
            let dtype = stored_as(t.dtype);
            entries.push(Entry { name, handle, dtype, shape: t.shape.clone(), bytes: t.bytes() });
        });
    }
    // The format's own writer sorts this way: what needs the largest alignment comes first.
    entries.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
    let header = header_of(path, &entries, &metadata)?;
    replace(path, |file| {
        let mut write = |bytes: &[u8]| file.write_all(bytes).map_err(|error| file_error(path, error));
        write(&(header.len() as u64).to_le_bytes())?;
        write(header.as_bytes())?;
        for entry in &entries {
            on_device!(device_of(entry.handle)?, backend => {
                backend.read(&tensor(backend, "tensor", entry.handle)?, &mut write)??;
            });
        }
        Ok(())
    })
}

fn header_of(path: &str, entries: &[Entry], metadata: &BTreeMap<String, String>) -> Checked<String> {
    let internal =
        |error: &dyn std::fmt::Display| Error::new(ErrorCode::Internal, format!("{path}: {error}"));
    let mut end = 0;
    let infos = entries.iter().map(|entry| {
        let start = end;
        end += entry.bytes;
        let info = TensorInfo { dtype: entry.dtype, shape: entry.shape.clone(), data_offsets: (start, end) };
        (entry.name.clone(), info)
    });
    let tensors = Metadata::new(None, infos.collect()).map_err(|error| internal(&error))?;
    let tensors = serde_json::to_string(&tensors).map_err(|error| internal(&error))?;
    // Sorted, unlike the map that the format's own writer takes: the same call writes the same bytes.
    let metadata = serde_json::to_string(metadata).map_err(|error| internal(&error))?;
    let comma = if entries.is_empty() { "" } else { "," };
    let mut header = format!("{{\"__metadata__\":{metadata}{comma}{}", &tensors[1..]);
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(ALIGNMENT) - header.len()));
    if header.len() as u64 > MOST_HEADER_BYTES {
        bail!(
            Argument,
            "{path}: names and metadata take {} bytes, of which the format allows {MOST_HEADER_BYTES}",
            header.len()
        );
    }
    Ok(header)
}
