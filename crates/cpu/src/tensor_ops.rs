//! Copies, casts and in-place sums of whole tensors.

use bytemuck::Pod;
use half::{bf16, f16};
use spikenorm_core::{DType, Result, workspace};

use crate::HostMemory;
use crate::backend::{Cpu, CpuTensor};
use crate::element::{Element, with_float};
use crate::parallel::for_each;
use crate::simd::vectorized;
use crate::stream::{Fill, write};
use crate::through_float32::is_half;

/// Values of a task of an element-wise sum or cast.
const TASK_VALUES: usize = 1 << 15;

/// Any element, convertible through float64 with a single rounding.
trait Scalar: Pod {
    fn widen(self) -> f64;
    fn narrow(value: f64) -> Self;
}

macro_rules! scalar {
    ($($type:ty: $to:expr, $from:expr;)+) => {$(
        impl Scalar for $type {
            #[inline(always)]
            fn widen(self) -> f64 {
                $to(self)
            }
            #[inline(always)]
            fn narrow(value: f64) -> Self {
                $from(value)
            }
        }
    )+};
}

scalar! {
    f64: |v| v, |v| v;
    f32: f64::from, |v| v as f32;
    f16: f16::to_f64, |v| f16::store(round_to_odd(v));
    bf16: bf16::to_f64, |v| bf16::store(round_to_odd(v));
    u8: f64::from, |v| v as u8;
    i64: |v| v as f64, |v| v as i64;
}

/// Float64 to float32 so that rounding once more, to a half type, gives what rounding once would have: what is
/// inexact gets an odd last bit and so is never taken for a tie.
#[inline(always)]
fn round_to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    let wide = f64::from(nearest);
    if wide == value || value.is_nan() {
        return nearest;
    }
    let truncated = if wide.abs() > value.abs() { nearest.to_bits() - 1 } else { nearest.to_bits() };
    f32::from_bits(truncated | 1)
}

macro_rules! with_scalar {
    ($dtype:expr, $E:ident => $body:expr) => {
        match $dtype {
            DType::F64 => {
                type $E = f64;
                $body
            }
            DType::F32 => {
                type $E = f32;
                $body
            }
            DType::F16 => {
                type $E = f16;
                $body
            }
            DType::BF16 => {
                type $E = bf16;
                $body
            }
            DType::U8 => {
                type $E = u8;
                $body
            }
            DType::I64 => {
                type $E = i64;
                $body
            }
        }
    };
}

/// All values as float64 (int64 beyond 2^53 is rounded).
pub fn read_f64(tensor: &CpuTensor) -> Result<Vec<f64>> {
    let memory = tensor.memory.read()?;
    with_scalar!(tensor.dtype, E => {
        workspace::collect(memory.slice::<E>(tensor.offset, tensor.len()).iter().map(|v| v.widen()))
    })
}

/// Overwrites all values, rounded once.
pub fn write_f64(tensor: &CpuTensor, values: &[f64]) -> Result<()> {
    let mut memory = tensor.memory.write()?;
    with_scalar!(tensor.dtype, E => {
        for (target, &value) in memory.slice::<E>(tensor.offset, tensor.len()).iter_mut().zip(values) {
            *target = E::narrow(value);
        }
    });
    Ok(())
}

pub fn fill(tensor: &CpuTensor, value: f64) -> Result<()> {
    let mut memory = tensor.memory.write()?;
    with_scalar!(tensor.dtype, E => memory.slice::<E>(tensor.offset, tensor.len()).fill(E::narrow(value)));
    Ok(())
}

/// A tensor of its own with the same values.
pub fn copy_of(source: &CpuTensor) -> Result<CpuTensor> {
    let copy = Cpu.allocate(&source.shape, source.dtype)?;
    copy_into(&copy, source)?;
    Ok(copy)
}

/// `target = source`, rounded once where dtypes differ. Sizes are equal.
pub fn copy_into(target: &CpuTensor, source: &CpuTensor) -> Result<()> {
    if std::sync::Arc::ptr_eq(&target.memory, &source.memory) {
        if target.offset == source.offset && target.dtype == source.dtype {
            return Ok(());
        }
        return copy_into(target, &copy_of(source)?);
    }
    let from = source.memory.read()?;
    let mut to = target.memory.write()?;
    let len = source.len();
    if is_half(source.dtype) && target.dtype == DType::F32 {
        return with_float!(source.dtype, E => {
            in_tasks(from.slice::<E>(source.offset, len), to.slice(target.offset, len), load_all);
            Ok(())
        });
    }
    if source.dtype == DType::F32 && is_half(target.dtype) {
        return with_float!(target.dtype, E => {
            in_tasks(from.slice(source.offset, len), to.slice::<E>(target.offset, len), store_all);
            Ok(())
        });
    }
    with_scalar!(source.dtype, S => {
        let from = from.slice::<S>(source.offset, len);
        if source.dtype == target.dtype {
            to.slice::<S>(target.offset, len).copy_from_slice(from);
        } else {
            with_scalar!(target.dtype, T => {
                for (to, from) in to.slice::<T>(target.offset, len).iter_mut().zip(from) {
                    *to = T::narrow(from.widen());
                }
            });
        }
    });
    Ok(())
}

fn in_tasks<S: Sync, T: Send>(from: &[S], to: &mut [T], convert: fn(&[S], &mut [T])) {
    let bytes = size_of_val(from) + size_of_val(to);
    let tasks = workspace::collect(from.chunks(TASK_VALUES).zip(to.chunks_mut(TASK_VALUES)));
    let done = tasks.and_then(|tasks| {
        for_each(bytes, tasks, |(from, to)| {
            convert(from, to);
            Ok(())
        })
    });
    // Without memory for tasks it is done all the same: callers have changed other tensors by now.
    if done.is_err() {
        convert(from, to);
    }
}

vectorized! {
    fn load_all<'a, E: Element>(from: &'a [E], to: &'a mut [E::Acc]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = from.load();
        }
    }
}

vectorized! {
    fn store_all<'a, E: Element>(from: &'a [E::Acc], to: &'a mut [E]) {
        write(to, false, Copied(from));
    }
}

struct Copied<'a, A>(&'a [A]);

impl<A: Copy> Fill<A> for Copied<'_, A> {
    #[inline(always)]
    fn fill(&self, first: usize, out: &mut [A]) {
        out.copy_from_slice(&self.0[first..][..out.len()]);
    }
}

/// `target += source`, equal dtypes and sizes.
pub fn accumulate(target: &CpuTensor, source: &CpuTensor) -> Result<()> {
    let source = if std::sync::Arc::ptr_eq(&target.memory, &source.memory) {
        copy_of(source)?
    } else {
        source.clone()
    };
    let from = source.memory.read()?;
    let mut to = target.memory.write()?;
    with_float!(target.dtype, E => {
        let from = from.slice::<E>(source.offset, source.len());
        let to = to.slice::<E>(target.offset, target.len());
        add_assign(to, from);
    });
    Ok(())
}

/// `a + b`, equal dtypes and shapes.
pub fn add(a: &CpuTensor, b: &CpuTensor) -> Result<CpuTensor> {
    let len = a.len();
    let mut out = HostMemory::take(a.bytes())?;
    let (left, right) = (a.memory.read()?, b.memory.read()?);
    with_float!(a.dtype, E => {
        let sums = out.as_mut_slice::<E>()[..len].chunks_mut(TASK_VALUES);
        let left = left.slice::<E>(a.offset, len).chunks(TASK_VALUES);
        let right = right.slice::<E>(b.offset, len).chunks(TASK_VALUES);
        for_each(3 * a.bytes(), workspace::collect(sums.zip(left.zip(right)))?, |(sum, (a, b))| {
            add_into(sum, a, b);
            Ok(())
        })?;
    });
    Ok(CpuTensor::new(out, &a.shape, a.dtype))
}

vectorized! {
    fn add_into<'a, E: Element>(sum: &'a mut [E], a: &'a [E], b: &'a [E]) {
        for (sum, (a, b)) in sum.iter_mut().zip(a.iter().zip(b)) {
            *sum = E::store(a.load() + b.load());
        }
    }
}

vectorized! {
    fn add_assign<'a, E: Element>(to: &'a mut [E], from: &'a [E]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = E::store(to.load() + from.load());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cast_rounds_once_from_float64() {
        // Above the midpoint of two halves by less than float32 can tell: rounding twice would go to even.
        let value = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
        let source = Cpu.allocate(&[1], DType::F64).expect("allocates");
        write_f64(&source, &[value]).expect("writes");
        let target = Cpu.allocate(&[1], DType::F16).expect("allocates");
        copy_into(&target, &source).expect("copies");
        assert_eq!(read_f64(&target).expect("reads"), [1.0 + 2f64.powi(-10)]);
    }

    #[test]
    fn half_types_are_cast_to_float32_and_back_as_value_by_value() {
        let len = TASK_VALUES + 77;
        let values: Vec<f64> =
            (0..len).map(|i| f64::from((0.37 * i as f32).sin() * 10f32.powi(i as i32 % 13 - 8))).collect();
        let wide = Cpu.allocate(&[len], DType::F32).expect("allocates");
        write_f64(&wide, &values).expect("writes");
        for dtype in [DType::F16, DType::BF16] {
            let (expected, half, back) = (
                Cpu.allocate(&[len], dtype).expect("allocates"),
                Cpu.allocate(&[len], dtype).expect("allocates"),
                Cpu.allocate(&[len], DType::F32).expect("allocates"),
            );
            write_f64(&expected, &values).expect("writes");
            copy_into(&half, &wide).expect("casts");
            copy_into(&back, &half).expect("casts");
            let expected = read_f64(&expected).expect("reads");
            assert!(read_f64(&half).expect("reads") == expected, "{}", dtype.name());
            assert!(read_f64(&back).expect("reads") == expected, "{}", dtype.name());
        }
    }

    #[test]
    fn int64_survives_a_copy_beyond_2_to_the_53() {
        let source = Cpu.allocate(&[1], DType::I64).expect("allocates");
        source.memory.write().expect("free").slice::<i64>(0, 1)[0] = i64::MAX - 1;
        let copy = copy_of(&source).expect("copies");
        assert_eq!(copy.memory.read().expect("free").slice::<i64>(0, 1), [i64::MAX - 1]);
    }
}
