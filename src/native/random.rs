//! The generator behind parameter initialisation: one per JavaScript thread, seeded alike.

use std::cell::RefCell;

use napi::Env;
use napi::bindgen_prelude::Object;
use napi_derive::napi;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use spikenorm_core::{DType, bail, workspace};
use spikenorm_cpu::LentMut;

use crate::array_memory::unshared;
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

/// Makes `target`, an ArrayBuffer of uint32, a random permutation of 0 … n − 1. Refuses where there is no room for an array of as many JavaScript
/// numbers beside it: V8 would end the process.
#[napi]
pub fn randperm(env: Env, target: Object<'_>) -> Result<()> {
    face(|| {
        let mut target = unshared(&env, &target)?;
        let bytes = target.bytes_mut();
        // An empty buffer has no address to be aligned.
        let target: &mut [u32] = if bytes.is_empty() { &mut [] } else { bytemuck::cast_slice_mut(bytes) };
        workspace::expect_room(size_of::<f64>() * target.len())?;
        for (value, place) in target.iter_mut().zip(0..) {
            *value = place;
        }
        GENERATOR.with_borrow_mut(|generator| target.shuffle(generator));
        Ok(())
    })
}
