//! Reads files piece by piece: tensors go straight into their memory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use safetensors::tensor::{Metadata, TensorInfo};
use spikenorm_core::{Backend, DType, Tensor, bail, element_count};
use spikenorm_cpu::{Cpu, HostMemory};

use super::MOST_HEADER_BYTES;
use super::dtype::{Widening, loaded_as, widen};
use crate::error::Checked;
use crate::regular_file::{self, file_error};
use crate::room::expect_room;

/// Bytes of memory that parsing takes for a byte of the header, at most.
const PARSING: f64 = 24.0;
/// Bytes that are widened at once.
const CHUNK: usize = 1 << 16;

pub struct SafetensorsFile<'a> {
    path: &'a str,
    file: File,
    header: Metadata,
    /// Where the tensors begin.
    start: u64,
}

/// A tensor to be loaded.
struct Entry {
    name: String,
    info: TensorInfo,
    dtype: DType,
    widening: Widening,
}

impl<'a> SafetensorsFile<'a> {
    /// Opens a file and reads its header, which is checked against its size.
    pub fn open(path: &'a str) -> Checked<Self> {
        let invalid = |what: String| file_error(path, format!("not a valid safetensors file: {what}"));
        let (mut file, size) = regular_file::open(path)?;
        let mut length = [0; 8];
        if size < length.len() as u64 {
            return Err(invalid(format!("{size} bytes, too short for a header")));
        }
        read(path, &mut file, &mut length)?;
        let header_bytes = u64::from_le_bytes(length);
        if header_bytes > MOST_HEADER_BYTES {
            return Err(invalid(format!(
                "a header of {header_bytes} bytes, of which the format allows {MOST_HEADER_BYTES}"
            )));
        }
        let start = header_bytes + length.len() as u64;
        if start > size {
            return Err(invalid(format!("a header of {header_bytes} bytes in a file of {size}")));
        }
        expect_room(path, header_bytes as f64 * PARSING)?;
        let mut bytes = vec![0; header_bytes as usize];
        read(path, &mut file, &mut bytes)?;
        let header: Metadata =
            serde_json::from_slice(&bytes).map_err(|error| invalid(shortened(&error.to_string())))?;
        let data_bytes = header.data_len() as u64;
        if start.checked_add(data_bytes) != Some(size) {
            return Err(invalid(format!(
                "a header of {header_bytes} bytes and tensors of {data_bytes} in a file of {size}"
            )));
        }
        Ok(Self { path, file, header, start })
    }

    pub fn metadata(&self) -> HashMap<String, String> {
        self.header.metadata().clone().unwrap_or_default()
    }

    /// Every tensor, by name.
    pub fn tensors(mut self, skip_unsupported: bool) -> Checked<Vec<(String, Tensor<HostMemory>)>> {
        let mut entries = self.entries(skip_unsupported)?;
        expect_room(self.path, entries.iter().map(Entry::bytes).sum())?;
        entries.sort_by_key(|entry| entry.info.data_offsets);
        let mut loaded = Vec::with_capacity(entries.len());
        for entry in entries {
            let tensor = self.read_tensor(&entry)?;
            loaded.push((entry.name, tensor));
        }
        loaded.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(loaded)
    }

    fn entries(&self, skip_unsupported: bool) -> Checked<Vec<Entry>> {
        let mut entries = Vec::new();
        for (name, info) in self.header.tensors() {
            let Some((dtype, widening)) = loaded_as(info.dtype) else {
                if skip_unsupported {
                    continue;
                }
                bail!(
                    Dtype,
                    "{}: tensor '{}' has dtype {:?}, which has no counterpart here; skipUnsupported: true leaves it out",
                    self.path,
                    shortened(&name),
                    info.dtype
                );
            };
            element_count(&info.shape)
                .map_err(|error| file_error(self.path, format!("tensor '{}': {error}", shortened(&name))))?;
            entries.push(Entry { name, info: info.clone(), dtype, widening });
        }
        Ok(entries)
    }

    fn read_tensor(&mut self, entry: &Entry) -> Checked<Tensor<HostMemory>> {
        let (first, last) = entry.info.data_offsets;
        let from = SeekFrom::Start(self.start + first as u64);
        self.file.seek(from).map_err(|error| file_error(self.path, error))?;
        let tensor = Cpu.empty(&entry.info.shape, entry.dtype)?;
        {
            let mut memory = tensor.memory.write()?;
            match entry.widening {
                Widening::None => read(self.path, &mut self.file, memory.slice(0, last - first))?,
                Widening::Bool => {
                    let bytes: &mut [u8] = memory.slice(0, last - first);
                    read(self.path, &mut self.file, bytes)?;
                    bytes.iter_mut().for_each(|byte| *byte = (*byte != 0).into());
                }
                Widening::Integer(stored) => {
                    let mut chunk = [0; CHUNK];
                    let size = stored.bitsize() / 8;
                    for part in memory.slice::<i64>(0, tensor.len()).chunks_mut(CHUNK / size) {
                        let bytes = &mut chunk[..part.len() * size];
                        read(self.path, &mut self.file, bytes)?;
                        widen(stored, bytes, part);
                    }
                }
            }
        }
        Ok(tensor)
    }
}

impl Entry {
    /// Bytes that the tensor takes in memory.
    fn bytes(&self) -> f64 {
        self.info.shape.iter().map(|&extent| extent as f64).product::<f64>() * self.dtype.size() as f64
    }
}

fn read(path: &str, file: &mut File, bytes: &mut [u8]) -> Checked<()> {
    file.read_exact(bytes).map_err(|error| file_error(path, format!("cannot be read whole: {error}")))
}

/// What a file brings into a message: without control characters, and not as long as the file.
fn shortened(text: &str) -> String {
    const MOST: usize = 100;
    let text: String = text.chars().take(MOST + 1).collect();
    let text = text.escape_debug().to_string();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
