//! The dtypes of the format, and what each is here.

use safetensors::Dtype;
use spikenorm_core::DType;

/// How the bytes of a file become elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Widening {
    /// They are those of the dtype.
    None,
    /// 0 or 1, as uint8.
    Bool,
    /// A narrower integer, as int64.
    Integer(Dtype),
}

/// The dtype that holds every value of a stored one, or `None`.
pub fn loaded_as(stored: Dtype) -> Option<(DType, Widening)> {
    Some(match stored {
        Dtype::F64 => (DType::F64, Widening::None),
        Dtype::F32 => (DType::F32, Widening::None),
        Dtype::F16 => (DType::F16, Widening::None),
        Dtype::BF16 => (DType::BF16, Widening::None),
        Dtype::U8 => (DType::U8, Widening::None),
        Dtype::I64 => (DType::I64, Widening::None),
        Dtype::BOOL => (DType::U8, Widening::Bool),
        Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::U16 | Dtype::U32 => {
            (DType::I64, Widening::Integer(stored))
        }
        _ => return None,
    })
}

pub fn stored_as(dtype: DType) -> Dtype {
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::U8 => Dtype::U8,
        DType::I64 => Dtype::I64,
    }
}

/// Widens integers, as many as `target` has.
pub fn widen(stored: Dtype, bytes: &[u8], target: &mut [i64]) {
    macro_rules! from {
        ($type:ty) => {
            for (wide, &narrow) in target.iter_mut().zip(bytes.as_chunks().0) {
                *wide = <$type>::from_le_bytes(narrow).into();
            }
        };
    }
    match stored {
        Dtype::I8 => from!(i8),
        Dtype::I16 => from!(i16),
        Dtype::I32 => from!(i32),
        Dtype::U16 => from!(u16),
        _ => from!(u32),
    }
}
