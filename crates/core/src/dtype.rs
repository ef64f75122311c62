//! Element types of tensors.

use crate::{Result, bail};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    F64,
    F32,
    F16,
    BF16,
    U8,
    I64,
}

impl DType {
    pub const ALL: [DType; 6] = [Self::F64, Self::F32, Self::F16, Self::BF16, Self::U8, Self::I64];

    pub fn name(self) -> &'static str {
        match self {
            Self::F64 => "float64",
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
            Self::U8 => "uint8",
            Self::I64 => "int64",
        }
    }

    pub fn from_name(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|dtype| dtype.name() == name) {
            Some(dtype) => Ok(dtype),
            None => bail!(
                Dtype,
                "dtype: expected one of float64, float32, float16, bfloat16, uint8, int64, got '{name}'"
            ),
        }
    }

    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::U8 => 1,
        }
    }

    pub fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }

    /// Dtype of parameters, statistics and their gradients beside activations of this dtype:
    /// half types compute in float32.
    pub fn parameter(self) -> DType {
        match self {
            Self::F16 | Self::BF16 => Self::F32,
            other => other,
        }
    }
}
