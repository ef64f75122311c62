//! Host memory that stands in for device memory, in any dtype and at any alignment.

use half::{bf16, f16};
use spikenorm_core::DType;

/// Values of one dtype, `offset` bytes after an address that is a multiple of 16. Exactly as long as its
/// values, so that a sanitizer sees a step outside.
pub struct Buffer {
    bytes: Vec<u8>,
    offset: usize,
    dtype: DType,
}

impl Buffer {
    pub fn new(values: &[f64], dtype: DType, offset: usize) -> Self {
        let mut bytes = vec![0u8; offset];
        bytes.reserve_exact(values.len() * dtype.size());
        for &value in values {
            match dtype {
                DType::F64 => bytes.extend(value.to_le_bytes()),
                DType::F32 => bytes.extend((value as f32).to_le_bytes()),
                DType::F16 => bytes.extend(f16::from_f64(value).to_le_bytes()),
                DType::BF16 => bytes.extend(bf16::from_f64(value).to_le_bytes()),
                DType::U8 => bytes.push(value as u8),
                DType::I64 => bytes.extend((value as i64).to_le_bytes()),
            }
        }
        let buffer = Self { bytes, offset, dtype };
        assert!(
            buffer.bytes.is_empty() || (buffer.bytes.as_ptr() as usize).is_multiple_of(16),
            "the allocator aligns to 16 bytes"
        );
        buffer
    }

    /// NaN everywhere, or a number that no case has, so that what a kernel forgets to write shows.
    pub fn poisoned(len: usize, dtype: DType, offset: usize) -> Self {
        let poison = if dtype.is_float() { f64::NAN } else { 171.0 };
        Self::new(&vec![poison; len], dtype, offset)
    }

    pub fn from_bytes(bytes: Vec<u8>, dtype: DType) -> Self {
        Self { bytes, offset: 0, dtype }
    }

    pub fn zeroed_words(len: usize) -> Self {
        Self { bytes: vec![0; len * 4], offset: 0, dtype: DType::F32 }
    }

    pub fn address(&self) -> u64 {
        self.bytes.as_ptr() as u64 + self.offset as u64
    }

    pub fn bits(&self) -> &[u8] {
        &self.bytes[self.offset..]
    }

    pub fn values(&self) -> Vec<f64> {
        let chunks = self.bits().chunks_exact(self.dtype.size());
        match self.dtype {
            DType::F64 => chunks.map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
            DType::F32 => chunks.map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect(),
            DType::F16 => chunks.map(|b| f16::from_le_bytes(b.try_into().unwrap()).to_f64()).collect(),
            DType::BF16 => chunks.map(|b| bf16::from_le_bytes(b.try_into().unwrap()).to_f64()).collect(),
            DType::U8 => chunks.map(|b| b[0].into()).collect(),
            DType::I64 => chunks.map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
        }
    }
}

/// `values` as `dtype` holds them.
pub fn rounded(values: &[f64], dtype: DType) -> Vec<f64> {
    Buffer::new(values, dtype, 0).values()
}

/// Address of a buffer that may be absent.
pub fn address(buffer: &Option<Buffer>) -> u64 {
    buffer.as_ref().map_or(0, Buffer::address)
}

/// The same values with the axes of a `[T, N, C, S]` tensor in the order `[T, N, S, C]`, or back.
pub fn transposed(values: &[f64], inner: usize, outer: usize) -> Vec<f64> {
    let mut out = Vec::with_capacity(values.len());
    for plane in values.chunks_exact(inner * outer) {
        for i in 0..inner {
            out.extend((0..outer).map(|o| plane[o * inner + i]));
        }
    }
    out
}
