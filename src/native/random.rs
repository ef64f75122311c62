//! The generator behind parameter initialisation: one per JavaScript thread, seeded alike.

use std::cell::RefCell;
use std::hint::black_box;

use napi::bindgen_prelude::Uint32ArraySlice;
use napi_derive::napi;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use spikenorm_core::{DType, bail, workspace};

use crate::device::{Place, on_device};
use crate::error::{Checked, Result, face};
use crate::handles::{Handle, device_of, tensor};

thread_local! {
    static GENERATOR: RefCell<Pcg64> = RefCell::new(Pcg64::seed_from_u64(0));
}

#[napi]
pub fn manual_seed(seed: i64) -> Result<()> {
    face(|| {
        GENERATOR.set(Pcg64::seed_from_u64(seed as u64));
        Ok(())
    })
}

/// Fills a tensor with values of U(low, high). In place.
#[napi]
pub fn tensor_uniform(target: f64, low: f64, high: f64) -> Result<()> {
    face(|| on_device!(device_of(target)?, backend => uniform(backend, target, low, high)))
}

/// Values drawn and uploaded at a time.
const CHUNK: usize = 1 << 16;

/// The numbers are drawn on the host, so that a seed means the same on every device.
fn uniform<B: Place>(backend: &B, target: Handle, low: f64, high: f64) -> Checked<()> {
    let target = tensor(backend, "tensor", target)?;
    if !target.dtype.is_float() {
        bail!(Dtype, "uniform: expected a floating-point tensor, got {}", target.dtype.name());
    }
    let len = target.len();
    let target = target.reshape(&[len])?;
    let mut values = workspace::with_capacity(CHUNK.min(len))?;
    // Stored when all is done: a call that throws draws nothing.
    let mut generator = GENERATOR.with_borrow(Pcg64::clone);
    for first in (0..len).step_by(CHUNK) {
        let count = CHUNK.min(len - first);
        values.clear();
        values.extend((0..count).map(|_| low + (high - low) * generator.random::<f64>()));
        let wide = backend.upload(bytemuck::cast_slice(&values), &[count], DType::F64)?;
        backend.copy(&target.rows(first, count), &wide)?;
    }
    GENERATOR.set(generator);
    Ok(())
}

/// Makes `target` a random permutation of 0 … n − 1. Refuses where there is no room for an array of as many JavaScript
/// numbers beside it: V8 would end the process.
#[napi]
#[allow(unsafe_code)]
pub fn randperm(mut target: Uint32ArraySlice<'_>) -> Result<()> {
    face(|| {
        // SAFETY: it is the only argument, the caller has just made it, and no JavaScript runs before this returns.
        let target = unsafe { target.as_mut() };
        let room = workspace::with_capacity::<f64>(target.len())?;
        // Else the compiler would not try.
        drop(black_box(room));
        for (value, place) in target.iter_mut().zip(0..) {
            *value = place;
        }
        GENERATOR.with_borrow_mut(|generator| target.shuffle(generator));
        Ok(())
    })
}
