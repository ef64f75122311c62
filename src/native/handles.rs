//! The registry of everything JavaScript holds: tensors, specifications and what is saved for backward, each
//! known by a number. Cheap to pass, and freed in three ways: at once (`free`), when the JavaScript object
//! that owns it has been collected (`sweep`), and when its environment ends.

use std::any::Any;
use std::cell::RefCell;

use napi::Env;
use napi::bindgen_prelude::{Either, Object};
use napi_derive::napi;
use spikenorm_core::{Error, ErrorCode, ExternalMemory, Tensor, bail};

use crate::device::{Device, Place};
use crate::error::{Checked, Result, face, napi_failure};
use crate::weak::{WeakObject, in_scope};

/// A handle; 0 stands for none. A place in the registry, counted from 1.
pub type Handle = u32;

/// Handles stay below this, so that two fit into a number of JavaScript's.
const PAIR: f64 = (1u32 << 26) as f64;

/// New handles after which collected owners are looked for, at least.
const SWEEP_HANDLES: usize = 1024;
/// New bytes after which collected owners are looked for, at least.
const SWEEP_BYTES: usize = 32 << 20;

struct Slot {
    value: Box<dyn Any>,
    /// Where the value's tensors are; the CPU for values without any.
    device: Device,
    bytes: usize,
    owner: Option<WeakObject>,
    /// The layer whose end is this one's too, for what a forward has saved: watching its JavaScript object as well would
    /// cost as much as a small forward.
    layer: Option<usize>,
    /// The places of what belongs to this layer, and, once it has been taken out, the values.
    saved: Vec<usize>,
    taken: Vec<Slot>,
}

impl Slot {
    /// Bytes of the value and of those taken out with it.
    fn bytes_taken(&self) -> usize {
        self.bytes + self.taken.iter().map(Self::bytes_taken).sum::<usize>()
    }
}

#[derive(Default)]
pub struct Registry {
    slots: Vec<Option<Slot>>,
    /// Empty places.
    free: Vec<usize>,
    live_handles: usize,
    memory: ExternalMemory,
    new_handles: usize,
    new_bytes: usize,
    watched: Vec<napi::sys::napi_env>,
}

thread_local! {
    static REGISTRY: RefCell<Registry> = RefCell::default();
}

fn place(handle: Handle) -> usize {
    (handle as usize).wrapping_sub(1)
}

impl Registry {
    fn insert(&mut self, value: Box<dyn Any>, device: Device, bytes: usize) -> Handle {
        let slot = Slot { value, device, bytes, owner: None, layer: None, saved: vec![], taken: vec![] };
        self.live_handles += 1;
        self.memory.add(bytes);
        self.new_handles += 1;
        self.new_bytes += bytes;
        let place = if let Some(place) = self.free.pop() {
            self.slots[place] = Some(slot);
            place
        } else {
            self.slots.push(Some(slot));
            self.slots.len() - 1
        };
        place as Handle + 1
    }

    fn slot(&self, handle: Handle) -> Checked<&Slot> {
        self.slots.get(place(handle)).and_then(Option::as_ref).ok_or_else(disposed)
    }

    /// A value by its handle.
    pub fn value<T: Any>(&self, handle: Handle) -> Checked<&T> {
        self.slot(handle)?.value.downcast_ref().ok_or_else(disposed)
    }

    /// The tensor of a handle, which must be on the backend's device.
    pub fn tensor<B: Place>(&self, backend: &B, what: &str, handle: Handle) -> Checked<&Tensor<B::Memory>> {
        let slot = self.slot(handle)?;
        let (here, expected) = (slot.device, backend.device());
        if here != expected {
            bail!(
                Device,
                "{what}: expected a tensor on {}, got one on {}; move it with to('{0}')",
                expected.name(),
                here.name()
            );
        }
        slot.value.downcast_ref().ok_or_else(disposed)
    }

    /// The same; `None` for 0.
    pub fn optional_tensor<B: Place>(
        &self,
        backend: &B,
        what: &str,
        handle: Handle,
    ) -> Checked<Option<&Tensor<B::Memory>>> {
        if handle == 0 { Ok(None) } else { self.tensor(backend, what, handle).map(Some) }
    }

    /// Puts a tensor in the place of another.
    fn set<B: Place>(&mut self, backend: &B, handle: Handle, mut new: Tensor<B::Memory>) -> Checked<()> {
        let slot = self.slots.get_mut(place(handle)).and_then(Option::as_mut).ok_or_else(disposed)?;
        let bytes = new.bytes();
        match slot.value.downcast_mut() {
            Some(old) => std::mem::swap(old, &mut new),
            None => slot.value = Box::new(new),
        }
        slot.device = backend.device();
        self.memory.replace(slot.bytes, bytes);
        slot.bytes = bytes;
        Ok(())
    }

    /// Takes a value out that the program frees; the caller drops it after releasing the registry.
    fn take(&mut self, handle: Handle) -> Option<Slot> {
        let slot = self.take_at(place(handle))?;
        self.memory.dispose(slot.bytes_taken());
        Some(slot)
    }

    fn take_at(&mut self, place: usize) -> Option<Slot> {
        let mut slot = self.slots.get_mut(place)?.take()?;
        self.free.push(place);
        self.live_handles -= 1;
        if let Some(layer) = slot.layer.and_then(|layer| self.slots[layer].as_mut()) {
            // Mostly the latest.
            if let Some(at) = layer.saved.iter().rposition(|&saved| saved == place) {
                layer.saved.remove(at);
            }
        }
        for saved in std::mem::take(&mut slot.saved) {
            slot.taken.extend(self.take_at(saved));
        }
        Some(slot)
    }

    fn is_sweep_due(&self) -> bool {
        self.new_handles >= SWEEP_HANDLES.max(self.live_handles / 2)
            || self.new_bytes >= SWEEP_BYTES.max(self.memory.live() / 2)
    }

    fn sweep(&mut self, env: &Env) -> Vec<Slot> {
        self.new_handles = 0;
        self.new_bytes = 0;
        let gone = in_scope(env, || {
            self.take_all(|slot| slot.owner.as_ref().is_some_and(|owner| owner.is_gone(env)))
        });
        let bytes: usize = gone.iter().map(Slot::bytes_taken).sum();
        if bytes > 0 {
            self.memory.collect(bytes);
        }
        gone
    }

    fn take_all(&mut self, is_taken: impl Fn(&Slot) -> bool) -> Vec<Slot> {
        let places: Vec<usize> = (0..self.slots.len())
            .filter(|&place| self.slots[place].as_ref().is_some_and(&is_taken))
            .collect();
        places.into_iter().filter_map(|place| self.take_at(place)).collect()
    }
}

fn disposed() -> Error {
    Error::new(ErrorCode::Disposed, "the tensor or layer has been disposed of")
}

fn with<R>(body: impl FnOnce(&mut Registry) -> R) -> R {
    REGISTRY.with_borrow_mut(body)
}

/// Lends the registry. Nothing may be inserted or freed meanwhile.
pub fn lend<R>(read: impl FnOnce(&Registry) -> Checked<R>) -> Checked<R> {
    REGISTRY.with_borrow(read)
}

/// Registers a specification.
pub fn insert<T: Any>(value: T) -> Handle {
    with(|registry| registry.insert(Box::new(value), Device::Cpu, 0))
}

/// Registers what a forward on `backend` has saved; 0 for nothing.
pub fn insert_saved<T: Any>(backend: &impl Place, saved: Option<T>) -> Handle {
    saved.map_or(0, |saved| with(|registry| registry.insert(Box::new(saved), backend.device(), 0)))
}

/// The same, freed with its layer at the latest.
pub fn insert_saved_of<T: Any>(backend: &impl Place, saved: Option<T>, layer: Handle) -> Handle {
    let handle = insert_saved(backend, saved);
    if handle != 0 {
        with(|registry| {
            if let Some(slot) = &mut registry.slots[place(handle)] {
                slot.layer = Some(place(layer));
            }
            if let Some(slot) = &mut registry.slots[place(layer)] {
                slot.saved.push(place(handle));
            }
        });
    }
    handle
}

/// Registers a tensor. Views count their own bytes: what matters is that V8 feels the pressure.
pub fn insert_tensor<B: Place>(backend: &B, tensor: Tensor<B::Memory>) -> Handle {
    let bytes = tensor.bytes();
    with(|registry| registry.insert(Box::new(tensor), backend.device(), bytes))
}

pub fn insert_optional<B: Place>(backend: &B, tensor: Option<Tensor<B::Memory>>) -> Handle {
    tensor.map_or(0, |tensor| insert_tensor(backend, tensor))
}

/// Up to four handles as JavaScript gets them: two in one number, where the others are 0, else two such numbers. An
/// array costs more than all else about a small call.
pub type Packed = Either<f64, Vec<f64>>;

pub fn packed(first: [Handle; 2], second: [Handle; 2]) -> Packed {
    let pair = |[low, high]: [Handle; 2]| f64::from(low) + PAIR * f64::from(high);
    if second == [0, 0] { Either::A(pair(first)) } else { Either::B(vec![pair(first), pair(second)]) }
}

/// Refuses to go on where new handles might not fit into a pair; before a call changes anything.
pub fn expect_room() -> Checked<()> {
    let slots = REGISTRY.with_borrow(|registry| registry.slots.len());
    if slots >= PAIR as usize - 16 {
        bail!(OutOfMemory, "{slots} tensors are in use; dispose() of those that are not needed");
    }
    Ok(())
}

/// Reads a value by its handle.
pub fn get<T: Any, R>(handle: Handle, read: impl FnOnce(&T) -> Checked<R>) -> Checked<R> {
    lend(|registry| read(registry.value(handle)?))
}

/// Where the tensors of a value are.
pub fn device_of(handle: Handle) -> Checked<Device> {
    lend(|registry| Ok(registry.slot(handle)?.device))
}

/// The tensor of a handle, which must be on the backend's device.
pub fn tensor<B: Place>(backend: &B, what: &str, handle: Handle) -> Checked<Tensor<B::Memory>> {
    lend(|registry| registry.tensor(backend, what, handle).cloned())
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
    set_tensor(backend, target, new)
}

/// Lets a handle hold another tensor.
pub fn set_tensor<B: Place>(backend: &B, handle: Handle, tensor: Tensor<B::Memory>) -> Checked<()> {
    with(|registry| registry.set(backend, handle, tensor))
}

/// The tensor in a handle's place if there is a handle, else in a new one, which is returned.
pub fn put_tensor<B: Place>(backend: &B, handle: Handle, tensor: Tensor<B::Memory>) -> Checked<Handle> {
    if handle == 0 {
        Ok(insert_tensor(backend, tensor))
    } else {
        set_tensor(backend, handle, tensor).map(|()| 0)
    }
}

/// Frees a handle that a call has used up.
pub fn remove(env: &Env, handle: Handle) {
    if let Some(slot) = with(|registry| registry.take(handle))
        && let Some(owner) = slot.owner
    {
        owner.delete(env);
    }
}

/// Tells V8 about memory outside its heap.
fn report(env: &Env) -> Checked<()> {
    // Outside the borrow: this may run a garbage collection.
    if let Some(change) = with(|registry| registry.memory.tell()) {
        env.adjust_external_memory(change).map_err(napi_failure)?;
    }
    Ok(())
}

/// Ties a handle's life to a JavaScript object's.
#[napi]
pub fn track(env: Env, owner: Object<'_>, handle: u32) -> Result<()> {
    face(|| watch(&env, &owner, handle))
}

/// The same for a call that has made `handle` for `owner`; and looks after those whose owner is gone when it is time.
pub fn watch(env: &Env, owner: &Object<'_>, handle: Handle) -> Checked<()> {
    let weak = WeakObject::new(env, owner).map_err(napi_failure)?;
    let (is_new_env, is_due) = with(|registry| {
        if let Some(slot) = registry.slots.get_mut(place(handle)).and_then(Option::as_mut) {
            slot.owner = Some(weak);
        }
        let is_new_env = !registry.watched.contains(&env.raw());
        if is_new_env {
            registry.watched.push(env.raw());
        }
        (is_new_env, registry.is_sweep_due())
    });
    if is_new_env {
        env.add_env_cleanup_hook(*env, end_of_environment).map_err(napi_failure)?;
    }
    if is_due {
        let dropped = with(|registry| registry.sweep(env));
        for slot in dropped {
            if let Some(owner) = slot.owner {
                owner.delete(env);
            }
        }
    }
    report(env)
}

/// Frees a handle at once. Freeing twice is harmless.
#[napi]
pub fn free(env: Env, handle: u32) -> Result<()> {
    face(|| {
        remove(&env, handle);
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
        registry.take_all(|slot| slot.owner.as_ref().is_some_and(|owner| owner.is_of(&env)))
    });
    with(|registry| dropped.iter().for_each(|slot| registry.memory.dispose(slot.bytes_taken())));
    drop(dropped);
}
