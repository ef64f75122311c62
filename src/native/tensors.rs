//! Changes of several tensors in one call: everything is settled before the first one changes.

use std::any::Any;

use napi_derive::napi;
use spikenorm_core::{Backend, Tensor, bail};

use crate::device::{Place, on_device};
use crate::error::{Checked, Result, face};
use crate::handles::{Handle, device_of, replace, tensor};

fn expect_as_many(targets: &[Handle], sources: &[Handle]) -> Checked<()> {
    if targets.len() != sources.len() {
        bail!(Argument, "expected as many sources as targets, got {} and {}", sources.len(), targets.len());
    }
    Ok(())
}

/// `target = source` for each pair, rounded where dtypes differ, from whatever device.
#[napi]
pub fn tensors_copy(targets: Vec<f64>, sources: Vec<f64>) -> Result<()> {
    face(|| {
        expect_as_many(&targets, &sources)?;
        let mut staged = Vec::with_capacity(sources.len());
        for (&target, &source) in targets.iter().zip(&sources) {
            staged.push(on_device!(device_of(target)?, backend => stage(backend, target, source, &targets))?);
        }
        for (&target, source) in targets.iter().zip(staged) {
            on_device!(device_of(target)?, backend => copy(backend, target, &*source))?;
        }
        Ok(())
    })
}

/// What is to be copied to `target`, on its device and in memory that none of the copies changes.
fn stage<B: Place>(backend: &B, target: Handle, source: Handle, targets: &[Handle]) -> Checked<Box<dyn Any>> {
    let t: Tensor<B::Memory> = tensor(backend, "target", target)?;
    backend.expect_writable("target", &t)?;
    if device_of(source)? != backend.device() {
        return on_device!(device_of(source)?, from => {
            let s = tensor(from, "source", source)?;
            s.expect_shape("source", &t.shape)?;
            let here = from.read(&s, |bytes| backend.upload(bytes, &s.shape, s.dtype))??;
            Ok(Box::new(here))
        });
    }
    let s = tensor(backend, "source", source)?;
    s.expect_shape("source", &t.shape)?;
    backend.expect_readable("source", &s)?;
    for &other in targets {
        if device_of(other)? == backend.device()
            && backend.shares_memory(&s, &tensor(backend, "target", other)?)
        {
            let copied = backend.empty(&s.shape, s.dtype)?;
            backend.copy(&copied, &s)?;
            return Ok(Box::new(copied));
        }
    }
    Ok(Box::new(s))
}

fn copy<B: Place>(backend: &B, target: Handle, source: &dyn Any) -> Checked<()> {
    let Some(source) = source.downcast_ref::<Tensor<B::Memory>>() else {
        bail!(Internal, "a tensor that was copied to another device than its target's");
    };
    backend.copy(&tensor(backend, "target", target)?, source)
}

/// `target += source` for each pair.
#[napi]
pub fn tensors_accumulate(targets: Vec<f64>, sources: Vec<f64>) -> Result<()> {
    face(|| {
        expect_as_many(&targets, &sources)?;
        for (&target, &source) in targets.iter().zip(&sources) {
            on_device!(device_of(target)?, backend => {
                let (target, source) = (tensor(backend, "grad", target)?, tensor(backend, "gradient", source)?);
                target.expect_shape("grad", &source.shape)?;
                target.expect_dtype("grad", source.dtype)?;
                backend.expect_writable("grad", &target)?;
            });
        }
        for (&target, &source) in targets.iter().zip(&sources) {
            on_device!(device_of(target)?, backend => {
                backend.accumulate(&tensor(backend, "grad", target)?, &tensor(backend, "gradient", source)?)?;
            });
        }
        Ok(())
    })
}

/// Makes each target another name of its source's memory: how tensors keep their identity when their module changes
/// dtype or device.
#[napi]
pub fn tensors_replace(targets: Vec<f64>, sources: Vec<f64>) -> Result<()> {
    face(|| {
        expect_as_many(&targets, &sources)?;
        for &handle in targets.iter().chain(&sources) {
            on_device!(device_of(handle)?, backend => tensor(backend, "tensor", handle).map(drop))?;
        }
        for (&target, &source) in targets.iter().zip(&sources) {
            on_device!(device_of(source)?, backend => replace(backend, target, source))?;
        }
        Ok(())
    })
}
