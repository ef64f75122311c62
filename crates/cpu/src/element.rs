//! Element types of activations, and the type each computes in. Half types are converted in registers: here by branch-free
//! integer and float arithmetic, which vectorises; in `v3` float16 by the processor's instructions.

use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

use bytemuck::Pod;
use half::{bf16, f16};
use pulp::NullaryFnOnce;
use spikenorm_core::DType;

use crate::simd::dispatch;

/// Elements on processors that have more than the baseline of x86-64.
#[cfg(target_arch = "x86_64")]
pub(crate) use crate::v3 as fast;

#[cfg(not(target_arch = "x86_64"))]
pub mod fast {
    pub type F32 = f32;
    pub use half::{bf16 as BF16, f16 as F16};
}

/// Values of a half type rounded together.
pub const BLOCK: usize = 32;

/// The type arithmetic is done in: float64 for float64, float32 for everything else.
pub trait Real:
    Pod
    + PartialOrd
    + Send
    + Sync
    + Default
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + Element<Acc = Self>
{
    /// Whether float64 has no more digits than this type.
    const IS_WIDEST: bool = size_of::<Self>() == size_of::<f64>();
    /// Mean of squares from which rounding to multiples of the smallest number does not show.
    const LEAST_SQUARE: f64;
    fn from_f64(value: f64) -> Self;
    fn to_f64(self) -> f64;
    /// `value` as this type holds it, and what that leaves out.
    fn split(value: f64) -> (Self, f64);
    /// e^x for x ≤ 0, within 2 units in the last place; branch-free for float32.
    fn exp_of_negative(self) -> Self;
    fn sqrt(self) -> Self;
}

/// A floating-point element in memory.
pub trait Element: Pod + Send + Sync + Default {
    type Acc: Real;
    /// A cache line of them.
    type Packed: Pod + Default + AsRef<[Self]> + AsMut<[Self]>;
    const DTYPE: DType;
    /// Whether memory holds less digits than arithmetic has.
    const IS_HALF: bool = false;
    fn load(self) -> Self::Acc;
    /// Rounds to nearest, ties to even.
    fn store(value: Self::Acc) -> Self;
    /// The same for as many as make whole vectors, where the compiler would not make them of single values.
    #[inline(always)]
    fn store_block(values: &[Self::Acc; BLOCK], out: &mut [Self; BLOCK]) {
        for i in 0..BLOCK {
            out[i] = Self::store(values[i]);
        }
    }
    /// Loads as many values as make whole vectors, where the compiler would not make them of single values.
    #[inline(always)]
    fn load_block<const N: usize>(values: &[Self; N]) -> [Self::Acc; N] {
        let mut wide = [Self::Acc::default(); N];
        for i in 0..N {
            wide[i] = values[i].load();
        }
        wide
    }
    /// `a·b + c`, rounded once where the processor does that as fast as it adds.
    #[inline(always)]
    fn mul_add(a: Self::Acc, b: Self::Acc, c: Self::Acc) -> Self::Acc {
        a * b + c
    }
    /// Runs a loop over such elements as compiled for the processor's instruction set.
    #[inline(always)]
    fn vectorize<C: NullaryFnOnce>(call: C) -> C::Output {
        dispatch(call)
    }
}

macro_rules! real {
    ($type:ty, $dtype:ident, $split:expr, $exp:expr) => {
        impl Element for $type {
            type Acc = $type;
            type Packed = [$type; 64 / size_of::<$type>()];
            const DTYPE: DType = DType::$dtype;
            #[inline(always)]
            fn load(self) -> $type {
                self
            }
            #[inline(always)]
            fn store(value: $type) -> $type {
                value
            }
        }

        impl Real for $type {
            const LEAST_SQUARE: f64 = <$type>::MIN_POSITIVE as f64;
            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as $type
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn split(value: f64) -> (Self, f64) {
                $split(value)
            }
            #[inline(always)]
            fn exp_of_negative(self) -> Self {
                $exp(self)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                <$type>::sqrt(self)
            }
        }
    };
}

real!(f64, F64, |value: f64| (value, 0.0), f64::exp);
real!(
    f32,
    F32,
    |value: f64| {
        let high = value as f32;
        // An infinite or NaN mean has no low part; inf − inf must not make one.
        (high, if high.is_finite() { value - f64::from(high) } else { 0.0 })
    },
    exp_of_negative
);

/// e^x = 2^k·e^r with |r| ≤ ln 2/2 and a polynomial for e^r: the library's exp is a call per value.
#[inline(always)]
fn exp_of_negative(x: f32) -> f32 {
    // Below, 2^k leaves the normal numbers; the result rounds to at most 1.2e-38 anyway. NaN passes.
    let x = if x < -87.0 { -87.0 } else { x };
    // Adding 1.5·2^23 rounds to an integer, which is then in the low bits.
    let shifted = x * std::f32::consts::LOG2_E + 12_582_912.0;
    let k = shifted - 12_582_912.0;
    // ln 2 in two parts, the first exact in a product with k.
    let r = (x - k * (355.0 / 512.0)) + k * 2.121_944_4e-4;
    let tail = ((((1.987_569_1e-4 * r + 1.398_2e-3) * r + 8.333_452e-3) * r + 4.166_579_6e-2) * r
        + 1.666_666_5e-1)
        * r
        + 0.5;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    ((tail * r) * r + r + 1.0) * power
}

impl Element for bf16 {
    type Acc = f32;
    type Packed = [bf16; 32];
    const DTYPE: DType = DType::BF16;
    const IS_HALF: bool = true;
    #[inline(always)]
    fn vectorize<C: NullaryFnOnce>(call: C) -> C::Output {
        call.call()
    }
    #[inline(always)]
    fn load(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn store(value: f32) -> Self {
        // Rounding could carry a NaN's mantissa into infinity.
        let bits = if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() };
        Self::from_bits((bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16)
    }
}

impl Element for f16 {
    type Acc = f32;
    type Packed = [f16; 32];
    const DTYPE: DType = DType::F16;
    const IS_HALF: bool = true;
    #[inline(always)]
    fn vectorize<C: NullaryFnOnce>(call: C) -> C::Output {
        call.call()
    }
    #[inline(always)]
    fn load(self) -> f32 {
        let bits = u32::from(self.to_bits());
        let magnitude = bits & 0x7fff;
        // Moved into place the exponent is 112 too small; a product with 2^112 mends that exactly, and
        // makes subnormals normal.
        let scaled = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23);
        let special = (magnitude << 13) | 0x7f80_0000;
        let absolute = if magnitude >= 0x7c00 { special } else { scaled.to_bits() };
        f32::from_bits(absolute | ((bits & 0x8000) << 16))
    }
    #[inline(always)]
    fn store(value: f32) -> Self {
        let bits = value.to_bits();
        let sign = (bits >> 16) & 0x8000;
        let magnitude = bits & 0x7fff_ffff;
        // Below the smallest normal number (2^-14): adding 0.5 leaves the subnormal's bits, rounded to
        // even by the addition itself, in the low mantissa.
        let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
        let odd = (magnitude >> 13) & 1;
        let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + odd) >> 13;
        let finite = if magnitude < 0x3880_0000 { subnormal } else { normal };
        let special = if magnitude > 0x7f80_0000 { 0x7e00 } else { 0x7c00 };
        // From 65520 on everything rounds to infinity.
        let absolute = if magnitude >= 0x477f_f000 { special } else { finite };
        Self::from_bits((absolute | sign) as u16)
    }
}

/// Runs `$body` with `$A` bound to the type of a dtype that arithmetic is done in.
macro_rules! with_real {
    ($dtype:expr, $A:ident => $body:expr) => {
        match $dtype {
            spikenorm_core::DType::F64 => {
                type $A = f64;
                $body
            }
            spikenorm_core::DType::F32 => {
                type $A = f32;
                $body
            }
            other => spikenorm_core::bail!(Dtype, "expected float64 or float32, got {}", other.name()),
        }
    };
}
pub(crate) use with_real;

/// Runs `$body` with `$E` bound to the element type of a floating-point dtype, of half types only those of [`fast`]: what
/// `through_float32::is_slow` does not come here.
macro_rules! with_fast_float {
    ($dtype:expr, $E:ident => $body:expr) => {
        match $dtype {
            spikenorm_core::DType::F16 => {
                type $E = $crate::element::fast::F16;
                $body
            }
            spikenorm_core::DType::BF16 => {
                type $E = $crate::element::fast::BF16;
                $body
            }
            dtype => $crate::element::with_real!(dtype, $E => $body),
        }
    };
}
pub(crate) use with_fast_float;

/// Runs `$body` with `$E` bound to the element type of a floating-point dtype.
macro_rules! with_float {
    ($dtype:expr, $E:ident => $body:expr) => {
        match $dtype {
            spikenorm_core::DType::F16 if !$crate::simd::beyond_baseline() => {
                type $E = half::f16;
                $body
            }
            spikenorm_core::DType::BF16 if !$crate::simd::beyond_baseline() => {
                type $E = half::bf16;
                $body
            }
            dtype => $crate::element::with_fast_float!(dtype, $E => $body),
        }
    };
}
pub(crate) use with_float;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_half_value_loads_as_the_half_crate_says() {
        for bits in 0..=u16::MAX {
            let half = f16::from_bits(bits);
            let (got, want) = (half.load(), half.to_f32());
            assert!(got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()), "{bits:#x}");
            let brain = bf16::from_bits(bits);
            let (got, want) = (brain.load(), brain.to_f32());
            assert!(got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()), "{bits:#x}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200_000))]
        #[test]
        fn every_float_stores_as_the_half_crate_says(bits: u32, narrow in 0x3300_0000u32..0x4780_0000) {
            for value in [f32::from_bits(bits), f32::from_bits(narrow), -f32::from_bits(narrow)] {
                let (got, want) = (f16::store(value), f16::from_f32(value));
                prop_assert!(got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()), "{value:e}");
                let (got, want) = (bf16::store(value), bf16::from_f32(value));
                prop_assert!(got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()), "{value:e}");
            }
        }
    }

    #[test]
    fn float32_exp_of_negative_numbers_is_within_two_units_in_the_last_place() {
        for i in 0..=870_000 {
            let x = -(i as f32) * 1e-4;
            let want = f64::from(x).exp();
            let error = (f64::from(Real::exp_of_negative(x)) - want).abs();
            assert!(error <= 2.0 * f64::from(f32::EPSILON) * want, "{x}: {error:e}");
        }
        assert_eq!(Real::exp_of_negative(f32::NEG_INFINITY), Real::exp_of_negative(-87.0f32));
        assert!(Real::exp_of_negative(f32::NAN).is_nan());
    }

    #[test]
    fn ties_between_halves_go_to_the_even_one() {
        for bits in 0..0x7bffu16 {
            let (low, high) = (f16::from_bits(bits).to_f64(), f16::from_bits(bits + 1).to_f64());
            let tie = ((low + high) / 2.0) as f32;
            assert_eq!(f16::store(tie).to_bits(), f16::from_f32(tie).to_bits(), "{tie:e}");
        }
    }
}
