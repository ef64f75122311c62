//! The registry of everything JavaScript holds: tensors, specifications and what is saved for backward, each
//! known by a number. Cheap to pass, and freed in three ways: at once (`free`), when the JavaScript object
//! that owns it has been collected (`sweep`), and when its environment ends.

use std::any::Any;
use std::cell::RefCell;

use napi::{Env, bindgen_prelude::Object};
use napi_derive::napi;
use spikenorm_core::{Error, ErrorCode, Tensor, bail};

use crate::device::{Device, Place};
use crate::error::{Checked, Result, face, napi_failure};
use crate::weak::{WeakObject, in_scope};

/// A handle; 0 stands for none.
pub type Handle = u32;

/// New handles after which collected owners are looked for, at least.
const SWEEP_HANDLES: usize = 1024;
/// New bytes after which collected owners are looked for, at least.
const SWEEP_BYTES: usize = 32 << 20;
/// Bytes that V8 is told about together; telling it costs more than a small operation.
const REPORT_BYTES: i64 = 1 << 20;

struct Slot {
    value: Box<dyn Any>,
    /// Where the value's tensors are; the CPU for values without any.
    device: Device,
    bytes: usize,
    owner: Option<WeakObject>,
}

#[derive(Default)]
struct Registry {
    slots: Vec<Option<Slot>>,
    free: Vec<Handle>,
    live_handles: usize,
    live_bytes: usize,
    new_handles: usize,
    new_bytes: usize,
    /// Bytes taken and given back that V8 has not been told of.
    unreported: i64,
    watched: Vec<napi::sys::napi_env>,
}

thread_local! {
    static REGISTRY: RefCell<Registry> = RefCell::default();
}

impl Registry {
    fn insert(&mut self, value: Box<dyn Any>, device: Device, bytes: usize) -> Handle {
        let slot = Some(Slot { value, device, bytes, owner: None });
        self.live_handles += 1;
        self.live_bytes += bytes;
        self.new_handles += 1;
        self.new_bytes += bytes;
        self.unreported += bytes as i64;
        if let Some(handle) = self.free.pop() {
            self.slots[handle as usize - 1] = slot;
            handle
        } else {
            self.slots.push(slot);
            self.slots.len() as Handle
        }
    }

    fn slot(&self, handle: Handle) -> Checked<&Slot> {
        let slot = self.slots.get((handle as usize).wrapping_sub(1)).and_then(Option::as_ref);
        slot.ok_or_else(disposed)
    }

    /// Takes a value out; the caller drops it after releasing the registry.
    fn take(&mut self, handle: Handle) -> Option<Slot> {
        let slot = self.slots.get_mut((handle as usize).wrapping_sub(1))?.take()?;
        self.free.push(handle);
        self.live_handles -= 1;
        self.live_bytes -= slot.bytes;
        self.unreported -= slot.bytes as i64;
        Some(slot)
    }

    fn is_sweep_due(&self) -> bool {
        self.new_handles >= SWEEP_HANDLES.max(self.live_handles / 2)
            || self.new_bytes >= SWEEP_BYTES.max(self.live_bytes / 2)
    }

    fn sweep(&mut self, env: &Env) -> Vec<Slot> {
        self.new_handles = 0;
        self.new_bytes = 0;
        let gone: Vec<Handle> = in_scope(env, || {
            let is_gone = |slot: &Slot| slot.owner.as_ref().is_some_and(|owner| owner.is_gone(env));
            (1..).zip(&self.slots).filter(|(_, s)| s.as_ref().is_some_and(is_gone)).map(|(h, _)| h).collect()
        });
        gone.into_iter().filter_map(|handle| self.take(handle)).collect()
    }
}

fn disposed() -> Error {
    Error::new(ErrorCode::Disposed, "the tensor or layer has been disposed of")
}

fn with<R>(body: impl FnOnce(&mut Registry) -> R) -> R {
    REGISTRY.with_borrow_mut(body)
}

/// Registers a specification.
pub fn insert<T: Any>(value: T) -> Handle {
    with(|registry| registry.insert(Box::new(value), Device::Cpu, 0))
}

/// Registers what a forward on `backend` has saved; 0 for nothing.
pub fn insert_saved<T: Any>(backend: &impl Place, saved: Option<T>) -> Handle {
    saved.map_or(0, |saved| with(|registry| registry.insert(Box::new(saved), backend.device(), 0)))
}

/// Registers a tensor. Views count their own bytes: what matters is that V8 feels the pressure.
pub fn insert_tensor<B: Place>(backend: &B, tensor: Tensor<B::Memory>) -> Handle {
    let bytes = tensor.bytes();
    with(|registry| registry.insert(Box::new(tensor), backend.device(), bytes))
}

pub fn insert_optional<B: Place>(backend: &B, tensor: Option<Tensor<B::Memory>>) -> Handle {
    tensor.map_or(0, |tensor| insert_tensor(backend, tensor))
}

/// Reads a value by its handle.
pub fn get<T: Any, R>(handle: Handle, read: impl FnOnce(&T) -> Checked<R>) -> Checked<R> {
    REGISTRY
        .with_borrow(|registry| read(registry.slot(handle)?.value.downcast_ref::<T>().ok_or_else(disposed)?))
}

/// Where the tensors of a value are.
pub fn device_of(handle: Handle) -> Checked<Device> {
    REGISTRY.with_borrow(|registry| Ok(registry.slot(handle)?.device))
}

/// The tensor of a handle, which must be on the backend's device.
pub fn tensor<B: Place>(backend: &B, what: &str, handle: Handle) -> Checked<Tensor<B::Memory>> {
    REGISTRY.with_borrow(|registry| {
        let slot = registry.slot(handle)?;
        let (here, expected) = (slot.device, backend.device());
        if here != expected {
            bail!(
                Device,
                "{what}: expected a tensor on {}, got one on {}; move it with to('{0}')",
                expected.name(),
                here.name()
            );
        }
        slot.value.downcast_ref::<Tensor<B::Memory>>().cloned().ok_or_else(disposed)
    })
}

/// The same; `None` for 0.
pub fn optional_tensor<B: Place>(
    backend: &B,
    what: &str,
    handle: Handle,
) -> Checked<Option<Tensor<B::Memory>>> {
    if handle == 0 { Ok(None) } else { tensor(backend, what, handle).map(Some) }
}

/// Makes `target` another name of `source`'s tensor, on whatever device.
pub fn replace<B: Place>(backend: &B, target: Handle, source: Handle) -> Checked<()> {
    let new: Tensor<B::Memory> = tensor(backend, "source", source)?;
    let bytes = new.bytes();
    let old = with(|registry| {
        let slot = registry.slots.get_mut((target as usize).wrapping_sub(1)).and_then(Option::as_mut)?;
        let old = std::mem::replace(&mut slot.value, Box::new(new));
        slot.device = backend.device();
        let difference = bytes as i64 - slot.bytes as i64;
        slot.bytes = bytes;
        registry.unreported += difference;
        registry.live_bytes = registry.live_bytes.wrapping_add_signed(difference as isize);
        Some(old)
    });
    old.map(drop).ok_or_else(disposed)
}

/// Tells V8 about memory outside its heap.
fn report(env: &Env) -> Checked<()> {
    let bytes = with(|registry| {
        if registry.unreported.abs() < REPORT_BYTES { 0 } else { std::mem::take(&mut registry.unreported) }
    });
    // Outside the borrow: this may run a garbage collection.
    if bytes != 0 {
        env.adjust_external_memory(bytes).map_err(napi_failure)?;
    }
    Ok(())
}

/// Ties a handle's life to a JavaScript object's, and looks after those whose owner is gone when it is time.
#[napi]
pub fn track(env: Env, owner: Object<'_>, handle: u32) -> Result<()> {
    face(|| {
        let weak = WeakObject::new(&env, &owner).map_err(napi_failure)?;
        let (is_new_env, is_due) = with(|registry| {
            if let Some(slot) = registry.slots.get_mut(handle as usize - 1).and_then(Option::as_mut) {
                slot.owner = Some(weak);
            }
            let is_new_env = !registry.watched.contains(&env.raw());
            if is_new_env {
                registry.watched.push(env.raw());
            }
            (is_new_env, registry.is_sweep_due())
        });
        if is_new_env {
            env.add_env_cleanup_hook(env, end_of_environment).map_err(napi_failure)?;
        }
        if is_due {
            let dropped = with(|registry| registry.sweep(&env));
            for slot in dropped {
                if let Some(owner) = slot.owner {
                    owner.delete(&env);
                }
            }
        }
        report(&env)
    })
}

/// Frees a handle at once. Freeing twice is harmless.
#[napi]
pub fn free(env: Env, handle: u32) -> Result<()> {
    face(|| {
        if let Some(slot) = with(|registry| registry.take(handle))
            && let Some(owner) = slot.owner
        {
            owner.delete(&env);
        }
        report(&env)
    })
}

/// Frees every handle whose owner has been collected; returns how many are left.
#[napi]
pub fn sweep(env: Env) -> Result<u32> {
    face(|| {
        let dropped = with(|registry| registry.sweep(&env));
        for slot in dropped {
            if let Some(owner) = slot.owner {
                owner.delete(&env);
            }
        }
        report(&env)?;
        Ok(with(|registry| registry.live_handles as u32))
    })
}

/// Drops what an ending environment owned. Its references are gone with it.
fn end_of_environment(env: Env) {
    let dropped: Vec<Slot> = with(|registry| {
        registry.watched.retain(|&watched| watched != env.raw());
        let is_of = |slot: &Slot| slot.owner.as_ref().is_some_and(|owner| owner.is_of(&env));
        let handles: Vec<Handle> = (1..)
            .zip(&registry.slots)
            .filter(|(_, s)| s.as_ref().is_some_and(is_of))
            .map(|(h, _)| h)
            .collect();
        handles.into_iter().filter_map(|handle| registry.take(handle)).collect()
    });
    drop(dropped);
}
