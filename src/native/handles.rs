//! The registry of everything JavaScript holds: tensors, specifications and what is saved for backward, each
//! known by a number that is never used again: what has been freed stays unknown. Cheap to pass, and freed in three
//! ways: at once (`free`), when the JavaScript object that owns it has been collected (`sweep`), and when its
//! environment ends.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use napi::Env;
use napi::bindgen_prelude::Object;
use napi_derive::napi;
use spikenorm_core::{Error, ErrorCode, ExternalMemory, Tensor, bail};
use spikenorm_cuda::driver::cancel_captures;

use crate::device::{Device, Place};
use crate::error::{Checked, Result, face, napi_failure};
use crate::weak::{WeakObject, in_scope};

/// A handle as JavaScript has it: a whole number counted from 1, each given out once. 0 stands for none.
pub type Handle = f64;

/// Handles that one call may return.
const GROUP: u64 = 4;
/// [`Made`] holds the first handle of a group above one bit for each.
const FIRST_HANDLE: f64 = (1u32 << GROUP) as f64;
/// The first handle of the last group that [`Made`] can hold.
const LAST_GROUP: u64 = (1 << (53 - GROUP)) - GROUP;

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
    layer: Option<u64>,
    /// What belongs to this layer, and, once it has been taken out, the values.
    saved: Vec<u64>,
    taken: Vec<Slot>,
}

impl Slot {
    /// Bytes of the value and of those taken out with it.
    fn bytes_taken(&self) -> usize {
        self.bytes + self.taken.iter().map(Self::bytes_taken).sum::<usize>()
    }
}

/// Spreads numbers that count up over a table: a multiplication instead of a hash of bytes.
#[derive(Default)]
struct CountingHasher(u64);

impl Hasher for CountingHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(self.0 ^ u64::from(byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // 2^64 over the golden ratio (Knuth's multiplicative hashing); the table reads the upper bits too.
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Default)]
pub struct Registry {
    slots: HashMap<u64, Slot, BuildHasherDefault<CountingHasher>>,
    /// The latest handle given out.
    latest: u64,
    memory: ExternalMemory,
    new_handles: usize,
    new_bytes: usize,
    watched: Vec<napi::sys::napi_env>,
}

thread_local! {
    static REGISTRY: RefCell<Registry> = RefCell::default();
}

/// The key of a handle; 0, which no value has, for what is no whole number.
fn key(handle: Handle) -> u64 {
    let key = handle as u64;
    if key as f64 == handle { key } else { 0 }
}

impl Registry {
    /// The first of `count` handles that follow each other.
    fn reserve(&mut self, count: u64) -> u64 {
        let first = self.latest + 1;
        self.latest += count;
        first
    }

    fn insert(&mut self, key: u64, value: Box<dyn Any>, device: Device, bytes: usize) -> Handle {
        self.memory.add(bytes);
        self.new_handles += 1;
        self.new_bytes += bytes;
        let slot = Slot { value, device, bytes, owner: None, layer: None, saved: vec![], taken: vec![] };
        self.slots.insert(key, slot);
        key as Handle
    }

    fn slot(&self, handle: Handle) -> Checked<&Slot> {
        self.slots.get(&key(handle)).ok_or_else(disposed)
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
        if handle == 0.0 { Ok(None) } else { self.tensor(backend, what, handle).map(Some) }
    }

    /// Puts a tensor in the place of another.
    fn set<B: Place>(&mut self, backend: &B, handle: Handle, mut new: Tensor<B::Memory>) -> Checked<()> {
        let slot = self.slots.get_mut(&key(handle)).ok_or_else(disposed)?;
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
        let slot = self.take_key(key(handle))?;
        self.memory.dispose(slot.bytes_taken());
        Some(slot)
    }

    fn take_key(&mut self, key: u64) -> Option<Slot> {
        let mut slot = self.slots.remove(&key)?;
        if let Some(layer) = slot.layer.and_then(|layer| self.slots.get_mut(&layer)) {
            // Mostly the latest.
            if let Some(at) = layer.saved.iter().rposition(|&saved| saved == key) {
                layer.saved.remove(at);
            }
        }
        for saved in std::mem::take(&mut slot.saved) {
            slot.taken.extend(self.take_key(saved));
        }
        Some(slot)
    }

    fn is_sweep_due(&self) -> bool {
        self.new_handles >= SWEEP_HANDLES.max(self.slots.len() / 2)
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
        let keys: Vec<u64> =
            self.slots.iter().filter(|(_, slot)| is_taken(slot)).map(|(&key, _)| key).collect();
        keys.into_iter().filter_map(|key| self.take_key(key)).collect()
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

/// Registers what a call has made, under a handle of its own.
fn insert_one(value: Box<dyn Any>, device: Device, bytes: usize) -> Handle {
    with(|registry| {
        let key = registry.reserve(1);
        registry.insert(key, value, device, bytes)
    })
}

/// Registers a specification.
pub fn insert<T: Any>(value: T) -> Handle {
    insert_one(Box::new(value), Device::Cpu, 0)
}

/// Registers a tensor. Views count their own bytes: what matters is that V8 feels the pressure.
pub fn insert_tensor<B: Place>(backend: &B, tensor: Tensor<B::Memory>) -> Handle {
    let bytes = tensor.bytes();
    insert_one(Box::new(tensor), backend.device(), bytes)
}

/// The handles of what one call has made, up to four, which follow each other: JavaScript gets them as one number, since
/// an array costs more than all else about a small call.
pub struct Made {
    first: u64,
    present: u32,
}

impl Made {
    /// Refuses to go on where the handles might not fit into a number; before a call changes anything.
    pub fn new() -> Checked<Self> {
        let first = with(|registry| registry.reserve(GROUP));
        if first > LAST_GROUP {
            bail!(OutOfMemory, "every handle has been used; start another process");
        }
        Ok(Self { first, present: 0 })
    }

    fn insert(&mut self, at: u32, value: Box<dyn Any>, device: Device, bytes: usize) {
        self.present |= 1 << at;
        let key = self.first + u64::from(at);
        with(|registry| registry.insert(key, value, device, bytes));
    }

    /// Puts a tensor in place `at`.
    pub fn tensor<B: Place>(&mut self, at: u32, backend: &B, tensor: Tensor<B::Memory>) {
        let bytes = tensor.bytes();
        self.insert(at, Box::new(tensor), backend.device(), bytes);
    }

    /// The same for a tensor that may be absent.
    pub fn optional_tensor<B: Place>(&mut self, at: u32, backend: &B, tensor: Option<Tensor<B::Memory>>) {
        if let Some(tensor) = tensor {
            self.tensor(at, backend, tensor);
        }
    }

    /// Puts what a forward on `backend` has saved, if anything, in place `at`.
    pub fn saved<T: Any>(&mut self, at: u32, backend: &impl Place, saved: Option<T>) {
        if let Some(saved) = saved {
            self.insert(at, Box::new(saved), backend.device(), 0);
        }
    }

    /// The same, freed with its layer at the latest.
    pub fn saved_of<T: Any>(&mut self, at: u32, backend: &impl Place, saved: Option<T>, layer: Handle) {
        let Some(saved) = saved else { return };
        self.insert(at, Box::new(saved), backend.device(), 0);
        let (own, layer) = (self.first + u64::from(at), key(layer));
        with(|registry| {
            if let Some(slot) = registry.slots.get_mut(&own) {
                slot.layer = Some(layer);
            }
            if let Some(slot) = registry.slots.get_mut(&layer) {
                slot.saved.push(own);
            }
        });
    }

    /// The handle in place `at`.
    pub fn handle(&self, at: u32) -> Handle {
        if self.present & (1 << at) == 0 { 0.0 } else { (self.first + u64::from(at)) as Handle }
    }

    /// All of them as one number: the first handle above a bit for each that is present (src/native.ts takes it apart).
    pub fn number(self) -> f64 {
        self.first as f64 * FIRST_HANDLE + f64::from(self.present)
    }
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
    if handle == 0.0 { Ok(None) } else { tensor(backend, what, handle).map(Some) }
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

/// Frees a handle that a call has used up.
pub fn remove(env: &Env, handle: Handle) {
    if let Some(slot) = with(|registry| registry.take(handle))
        && let Some(owner) = slot.owner
    {
        owner.delete(env);
    }
}

/// Frees what has had an owner that has been collected.
fn free_collected(env: &Env) {
    for slot in with(|registry| registry.sweep(env)) {
        if let Some(owner) = slot.owner {
            owner.delete(env);
        }
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

/// Makes a JavaScript object the owner of a handle that has none yet, whose life it then is. A handle is given to its
/// owner in the call that made it, so that no other object can take it over.
#[napi]
pub fn track(env: Env, owner: Object<'_>, handle: f64) -> Result<()> {
    face(|| {
        with(|registry| match registry.slots.get(&key(handle)) {
            Some(Slot { owner: None, layer: None, .. }) => Ok(()),
            _ => bail!(Argument, "expected a new handle, got {handle}"),
        })?;
        watch(&env, &owner, handle)
    })
}

/// Frees what a forward has saved with `owner` too: its layer, which would free it at the latest, may outlive it long.
#[napi]
pub fn track_saved(env: Env, owner: Object<'_>, handle: f64) -> Result<()> {
    face(|| watch(&env, &owner, handle))
}

/// Gives `handle` its owner; and looks after those whose owner is gone when it is time.
pub fn watch(env: &Env, owner: &Object<'_>, handle: Handle) -> Checked<()> {
    let weak = WeakObject::new(env, owner).map_err(napi_failure)?;
    let is_due = with(|registry| {
        if let Some(slot) = registry.slots.get_mut(&key(handle)) {
            slot.owner = Some(weak);
        }
        registry.is_sweep_due()
    });
    watch_end(env)?;
    if is_due {
        free_collected(env);
    }
    report(env)
}

/// Sees to it that [`end_of_environment`] is called.
pub fn watch_end(env: &Env) -> Checked<()> {
    let is_new = with(|registry| {
        let is_new = !registry.watched.contains(&env.raw());
        if is_new {
            registry.watched.push(env.raw());
        }
        is_new
    });
    if is_new {
        env.add_env_cleanup_hook(*env, end_of_environment).map_err(napi_failure)?;
    }
    Ok(())
}

/// Frees a handle at once. Freeing twice is harmless.
#[napi]
pub fn free(env: Env, handle: f64) -> Result<()> {
    face(|| {
        remove(&env, handle);
        report(&env)
    })
}

/// Frees every handle whose owner has been collected; returns how many are left.
#[napi]
pub fn sweep(env: Env) -> Result<u32> {
    face(|| {
        free_collected(&env);
        report(&env)?;
        Ok(with(|registry| registry.slots.len() as u32))
    })
}

/// Drops what an ending environment owned, and ends a capture that it has ended in: a worker may be terminated
/// anywhere. Its references are gone with it.
fn end_of_environment(env: Env) {
    cancel_captures();
    let dropped: Vec<Slot> = with(|registry| {
        registry.watched.retain(|&watched| watched != env.raw());
        registry.take_all(|slot| slot.owner.as_ref().is_some_and(|owner| owner.is_of(&env)))
    });
    with(|registry| dropped.iter().for_each(|slot| registry.memory.dispose(slot.bytes_taken())));
    drop(dropped);
}
