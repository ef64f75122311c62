//! Elements on x86-64-v3: types of their own, so that loops over them are compiled for such processors only, and float16 is
//! converted by their instructions.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m128, __m128i, __m256, __m256d, __m256i, _CMP_UNORD_Q, _MM_FROUND_TO_NEAREST_INT, _mm_cvtph_ps,
    _mm_cvtps_ph, _mm_cvtsi32_si128, _mm_cvtsi128_si32, _mm_cvtss_f32, _mm_loadu_si128, _mm_set_ss,
    _mm256_add_epi32, _mm256_add_pd, _mm256_and_si256, _mm256_blendv_ps, _mm256_castps_si256,
    _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_cvtps_pd,
    _mm256_cvtps_ph, _mm256_hadd_pd, _mm256_mul_pd, _mm256_packus_epi32, _mm256_permute2f128_pd,
    _mm256_permute4x64_epi64, _mm256_set1_epi32, _mm256_set1_pd, _mm256_set1_ps, _mm256_slli_epi32,
    _mm256_srli_epi32, _mm256_storeu_si256, _mm256_sub_pd,
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

/// Loads values eight at a time by `load`.
#[inline(always)]
fn load_by_eights<E: Element<Acc = f32>, const N: usize>(
    values: &[E; N],
    load: impl Fn(&[E; 8]) -> __m256,
) -> [f32; N] {
    let mut wide = [0.0; N];
    let (eights, rest) = values.as_chunks::<8>();
    let (wide_eights, wide_rest) = wide.as_chunks_mut::<8>();
    for (wide, eight) in wide_eights.iter_mut().zip(eights) {
        *wide = bytemuck::cast(load(eight));
    }
    for (wide, value) in wide_rest.iter_mut().zip(rest) {
        *wide = value.load();
    }
    wide
}

/// A bfloat16 on a processor of x86-64-v3. On another no tensor is read as this: `with_float!` and `through_float32::is_slow`
/// see to it.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct BF16(bf16);

impl Element for BF16 {
    type Acc = f32;
    type Packed = [Self; 32];
    const DTYPE: DType = DType::BF16;
    const IS_HALF: bool = true;

    #[inline(always)]
    fn load(self) -> f32 {
        self.0.load()
    }

    #[inline(always)]
    fn load_block<const N: usize>(values: &[Self; N]) -> [f32; N] {
        load_by_eights(values, |eight| {
            // SAFETY: the processor has AVX2, as is the type's condition, and there are eight values of two bytes.
            unsafe {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(eight.as_ptr().cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            }
        })
    }

    #[inline(always)]
    fn store(value: f32) -> Self {
        Self(bf16::store(value))
    }

    /// As [`bf16::store`] does it, but packs sixteen with two instructions.
    #[inline(always)]
    fn store_block(values: &[f32; BLOCK], out: &mut [Self; BLOCK]) {
        let sixteens = values.as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<16>().0);
        for (values, out) in sixteens {
            let [low, high]: [__m256; 2] = bytemuck::cast(*values);
            // SAFETY: the processor has AVX2, as is the type's condition, and there is room for sixteen values of two bytes.
            unsafe {
                // Each lane of the pack has four values of `low` and then four of `high`.
                let packed = _mm256_packus_epi32(upper_halves(low), upper_halves(high));
                _mm256_storeu_si256(
                    out.as_mut_ptr().cast(),
                    _mm256_permute4x64_epi64::<0b11_01_10_00>(packed),
                );
            }
        }
    }

    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn vectorize<C: NullaryFnOnce>(call: C) -> C::Output {
        vectorize(call)
    }
}

/// The upper halves of eight float32, to nearest, ties to even.
///
/// # Safety
/// The processor must have AVX2.
#[inline(always)]
unsafe fn upper_halves(values: __m256) -> __m256i {
    // SAFETY: as the function's.
    unsafe {
        // Rounding could carry a NaN's mantissa into infinity.
        let is_nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(values, values);
        let bits = _mm256_castps_si256(_mm256_blendv_ps(values, _mm256_set1_ps(f32::NAN), is_nan));
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
        _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, half))
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
    const IS_HALF: bool = true;

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

    #[inline(always)]
    fn load_block<const N: usize>(values: &[Self; N]) -> [f32; N] {
        load_by_eights(values, |eight| {
            // SAFETY: the processor has F16C, as is the type's condition, and there are eight values of two bytes.
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(eight.as_ptr().cast())) }
        })
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
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
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
        let same = |got: f32, want: f32| got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
        for first in (0..=u16::MAX).step_by(16) {
            // Two vectors, and some that are loaded one by one.
            let bits: [u16; 20] = std::array::from_fn(|i| first.wrapping_add(i as u16));
            let halves = F16::load_block(&bits.map(F16));
            let brains = BF16::load_block(&bits.map(|bits| BF16(bf16::from_bits(bits))));
            for (i, bits) in bits.into_iter().enumerate() {
                let want = f16::from_bits(bits).to_f32();
                assert!(same(F16(bits).load(), want) && same(halves[i], want), "{bits:#x}");
                assert!(same(brains[i], bf16::from_bits(bits).to_f32()), "{bits:#x}");
            }
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
                let mut brains = [BF16::default(); BLOCK];
                BF16::store_block(&values, &mut brains);
                for (value, got) in values.into_iter().zip(brains) {
                    let want = bf16::from_f32(value);
                    let same = got.0.to_bits() == want.to_bits();
                    prop_assert!(same || (got.load().is_nan() && want.is_nan()), "{value:e}");
                }
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
