//! The generator behind parameter initialisation: one per JavaScript thread, seeded alike.

use std::cell::RefCell;

use napi_derive::napi;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use spikenorm_core::{DType, bail};

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

/// The numbers are drawn on the host, so that a seed means the same on every device.
fn uniform<B: Place>(backend: &B, target: Handle, low: f64, high: f64) -> Checked<()> {
    let target = tensor(backend, "tensor", target)?;
    if !target.dtype.is_float() {
        bail!(Dtype, "uniform: expected a floating-point tensor, got {}", target.dtype.name());
    }
    let values: Vec<f64> = GENERATOR.with_borrow_mut(|generator| {
        (0..target.len()).map(|_| low + (high - low) * generator.random::<f64>()).collect()
    });
    let wide = backend.upload(bytemuck::cast_slice(&values), &target.shape, DType::F64)?;
    backend.copy(&target, &wide)
}

/// A random permutation of 0 … n − 1.
#[napi]
pub fn randperm(n: u32) -> Result<Vec<u32>> {
    face(|| {
        let mut permutation: Vec<u32> = (0..n).collect();
        GENERATOR.with_borrow_mut(|generator| permutation.shuffle(generator));
        Ok(permutation)
    })
}
