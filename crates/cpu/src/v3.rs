//! Elements on x86-64-v3: types of their own, so that loops over them are compiled for such processors only, and float16 is
//! converted by their instructions.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m128, __m128i, __m256, __m256d, _MM_FROUND_TO_NEAREST_INT, _mm_cvtph_ps, _mm_cvtps_ph,
    _mm_cvtsi32_si128, _mm_cvtsi128_si32, _mm_cvtss_f32, _mm_set_ss, _mm256_add_pd, _mm256_cvtps_pd,
    _mm256_cvtps_ph, _mm256_hadd_pd, _mm256_mul_pd, _mm256_permute2f128_pd, _mm256_set1_pd, _mm256_sub_pd,
};
use std::ops::{Add, Mul, Sub};

use bytemuck::{Pod, Zeroable};
use half::bf16;
use pulp::NullaryFnOnce;
use spikenorm_core::DType;

use crate::element::{BLOCK, Element};
use crate::simd::V3;

/// Runs a loop over elements of this file.
#[inline(always)]
fn vectorize<C: NullaryFnOnce>(call: C) -> C::Output {
    // SAFETY: the processor is of x86-64-v3, as is the condition of every type here.
    unsafe { V3::new_unchecked() }.vectorize(call)
}

/// A float32 on a processor of x86-64-v3. On another no tensor is read as this: `fits` of the `tiny` modules sees to it.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct F32(f32);

impl Element for F32 {
    type Acc = f32;
    type Packed = [Self; 16];
    const DTYPE: DType = DType::F32;

    #[inline(always)]
    fn load(self) -> f32 {
        self.0
    }

    #[inline(always)]
    fn store(value: f32) -> Self {
        Self(value)
    }

    #[inline(always)]
    fn vectorize<C: NullaryFnOnce>(call: C) -> C::Output {
        vectorize(call)
    }
}

/// Four of them in float64: a register.
#[derive(Clone, Copy)]
pub struct Four(__m256d);

impl Four {
    #[inline(always)]
    pub fn of(values: &[F32; 4]) -> Self {
        let narrow: __m128 = bytemuck::cast(*values);
        // SAFETY: the processor has AVX, as is the condition of F32.
        Self(unsafe { _mm256_cvtps_pd(narrow) })
    }
}

impl crate::four::Four for Four {
    #[inline(always)]
    fn splat(value: f64) -> Self {
        // SAFETY: the processor has AVX, as is the condition of the types here.
        Self(unsafe { _mm256_set1_pd(value) })
    }

    #[inline(always)]
    fn totals([a, b, c, d]: [Self; 4]) -> [f64; 4] {
        // SAFETY: the processor has AVX, as is the condition of the types here.
        let totals = unsafe {
            let (ab, cd) = (_mm256_hadd_pd(a.0, b.0), _mm256_hadd_pd(c.0, d.0));
            let low = _mm256_permute2f128_pd::<0x20>(ab, cd);
            let high = _mm256_permute2f128_pd::<0x31>(ab, cd);
            _mm256_add_pd(low, high)
        };
        bytemuck::cast(totals)
    }
}

macro_rules! in_registers {
    ($($operator:ident $method:ident $instruction:ident),*) => {$(
        impl $operator for Four {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: the processor has AVX, as is the condition of the types here.
                Self(unsafe { $instruction(self.0, other.0) })
            }
        }
    )*};
}
in_registers!(Add add _mm256_add_pd, Sub sub _mm256_sub_pd, Mul mul _mm256_mul_pd);

/// A bfloat16 on a processor of x86-64-v3. On another no tensor is read as this: `with_float!` and `through_float32::is_slow`
/// see to it.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct BF16(bf16);

impl Element for BF16 {
    type Acc = f32;
    type Packed = [Self; 32];
    const DTYPE: DType = DType::BF16;

    #[inline(always)]
    fn load(self) -> f32 {
        self.0.load()
    }

    #[inline(always)]
    fn store(value: f32) -> Self {
        Self(bf16::store(value))
    }

    #[inline(always)]
    fn vectorize<C: NullaryFnOnce>(call: C) -> C::Output {
        vectorize(call)
    }
}

/// A float16 on a processor of x86-64-v3. On another no tensor is read as this: `with_float!` and `through_float32::is_slow`
/// see to it.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct F16(u16);

impl Element for F16 {
    type Acc = f32;
    type Packed = [Self; 32];
    const DTYPE: DType = DType::F16;

    /// The compiler sees what the instruction does and makes one of eight in a loop.
    #[inline(always)]
    fn load(self) -> f32 {
        // SAFETY: the processor has F16C, as is the type's condition.
        unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(self.0)))) }
    }

    #[inline(always)]
    fn store(value: f32) -> Self {
        // SAFETY: the processor has F16C, as is the type's condition.
        let packed =
            unsafe { _mm_cvtsi128_si32(_mm_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm_set_ss(value))) };
        Self(packed as u16)
    }

    /// Here it does not see it.
    #[inline(always)]
    fn store_block(values: &[f32; BLOCK], out: &mut [Self; BLOCK]) {
        let (values, _) = values.as_chunks::<8>();
        let (out, _) = out.as_chunks_mut::<8>();
        for (out, values) in out.iter_mut().zip(values) {
            let wide: __m256 = bytemuck::cast(*values);
            // SAFETY: the processor has F16C, as is the type's condition.
            let packed: __m128i = unsafe { _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(wide) };
            *out = bytemuck::cast(packed);
        }
    }

    #[inline(always)]
    fn vectorize<C: NullaryFnOnce>(call: C) -> C::Output {
        vectorize(call)
    }
}

#[cfg(test)]
mod tests {
    use half::f16;
    use proptest::prelude::*;

    use super::*;
    use crate::simd::beyond_baseline;

    #[test]
    fn every_half_value_loads_as_the_half_crate_says() {
        if !beyond_baseline() {
            return eprintln!("skipped: this processor has no F16C");
        }
        for bits in 0..=u16::MAX {
            let (got, want) = (F16(bits).load(), f16::from_bits(bits).to_f32());
            assert!(got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()), "{bits:#x}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn floats_are_stored_as_the_half_crate_says(
            bits in proptest::array::uniform32(prop_oneof![any::<u32>(), 0x3300_0000u32..0x4780_0000]),
        ) {
            if beyond_baseline() {
                let values = bits.map(f32::from_bits);
                let mut block = [F16::default(); BLOCK];
                F16::store_block(&values, &mut block);
                for (value, got) in values.into_iter().zip(block) {
                    let want = f16::from_f32(value);
                    for got in [got, F16::store(value)] {
                        let same = got.0 == want.to_bits();
                        prop_assert!(same || (got.load().is_nan() && want.is_nan()), "{value:e}");
                    }
                }
            }
        }
    }
}
