//! How a loop gets compiled for the instruction set found at run time.

// What Haswell, Zen and all their successors have, as the psABI has it.
#[cfg(target_arch = "x86_64")]
pulp::simd_type!({
    pub struct V3 {
        pub sse3: f!("sse3"),
        pub ssse3: f!("ssse3"),
        pub sse4_1: f!("sse4.1"),
        pub sse4_2: f!("sse4.2"),
        pub popcnt: f!("popcnt"),
        pub avx: f!("avx"),
        pub avx2: f!("avx2"),
        pub bmi1: f!("bmi1"),
        pub bmi2: f!("bmi2"),
        pub f16c: f!("f16c"),
        pub fma: f!("fma"),
        pub lzcnt: f!("lzcnt"),
    }
});

/// Runs `call` as compiled for the best instruction set that the processor has.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn dispatch<C: pulp::NullaryFnOnce>(call: C) -> C::Output {
    match V3::try_new() {
        Some(set) => set.vectorize(call),
        None => call.call(),
    }
}

/// NEON belongs to the baseline of aarch64.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub fn dispatch<C: pulp::NullaryFnOnce>(call: C) -> C::Output {
    call.call()
}

/// Whether the processor has more than the baseline of x86-64, for which not everything is compiled (`element::fast`).
#[cfg(target_arch = "x86_64")]
pub fn beyond_baseline() -> bool {
    V3::is_available()
}

#[cfg(not(target_arch = "x86_64"))]
pub fn beyond_baseline() -> bool {
    true
}

/// Name of the instruction set chosen at run time.
pub fn simd_level() -> &'static str {
    if cfg!(target_feature = "neon") {
        "NEON"
    } else if cfg!(target_arch = "x86_64") && beyond_baseline() {
        "AVX2"
    } else {
        "baseline"
    }
}

/// Defines a function whose body is compiled once for every instruction set (on x86-64 AVX2 and the baseline) and
/// dispatched at run time, as its element type says.
///
/// Only what is inlined into the body profits, so what it calls in its loops is `#[inline(always)]`. This is a macro
/// because a closure or a function passed as a value keeps the baseline's code: neither is inlined where it is called
/// from two places.
macro_rules! vectorized {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<$life:lifetime, $element:ident: $bound:ident>(
        $($arg:ident: $type:ty),+ $(,)?
    ) $(-> $output:ty)? { $($body:tt)* }) => {
        $(#[$meta])*
        // Its loops would be in the binary once for every caller.
        #[inline(never)]
        $vis fn $name<$life, $element: $bound>($($arg: $type),+) $(-> $output)? {
            struct Call<$life, $element: $bound> {
                $($arg: $type),+
            }
            impl<$life, $element: $bound> pulp::NullaryFnOnce for Call<$life, $element> {
                type Output = $crate::simd::vectorized!(@output $($output)?);
                #[inline(always)]
                fn call(self) -> Self::Output {
                    let Self { $($arg),+ } = self;
                    $($body)*
                }
            }
            <$element as $crate::element::Element>::vectorize(Call { $($arg),+ })
        }
    };
    (@output $output:ty) => { $output };
    (@output) => { () };
}
pub(crate) use vectorized;
