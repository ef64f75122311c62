//! Four numbers of float64 side by side, for sums over rows so short that adding them up costs more than all else about a
//! pass. Left to itself, the compiler puts the same value of several rows together, one by one, instead of those that lie
//! side by side.

use std::ops::{Add, Mul, Sub};

use crate::element::{Element, Real, fast};

pub trait Four: Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> {
    fn splat(value: f64) -> Self;
    /// What the numbers of each add up to, all in the same order.
    fn totals(fours: [Self; 4]) -> [f64; 4];
}

/// Elements that are summed so.
pub trait InFours: Element {
    type Four: Four;
    fn four(values: &[Self; 4]) -> Self::Four;
}

#[cfg(target_arch = "x86_64")]
impl InFours for fast::F32 {
    type Four = crate::v3::Four;

    #[inline(always)]
    fn four(values: &[Self; 4]) -> Self::Four {
        Self::Four::of(values)
    }
}

/// As the compiler makes it.
#[derive(Clone, Copy)]
pub struct Plain([f64; 4]);

impl Four for Plain {
    #[inline(always)]
    fn splat(value: f64) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    fn totals(fours: [Self; 4]) -> [f64; 4] {
        fours.map(|Self([a, b, c, d])| (a + b) + (c + d))
    }
}

macro_rules! one_by_one {
    ($($operator:ident $method:ident),*) => {$(
        impl $operator for Plain {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self(std::array::from_fn(|i| self.0[i].$method(other.0[i])))
            }
        }
    )*};
}
one_by_one!(Add add, Sub sub, Mul mul);

macro_rules! plain {
    ($($element:ty),*) => {$(
        impl InFours for $element {
            type Four = Plain;

            #[inline(always)]
            fn four(values: &[Self; 4]) -> Plain {
                Plain(values.map(|value| value.load().to_f64()))
            }
        }
    )*};
}
plain!(f32, f64, half::f16, half::bf16);
#[cfg(target_arch = "x86_64")]
plain!(fast::F16, fast::BF16);
