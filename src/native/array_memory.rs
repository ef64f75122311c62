//! Memory shared with JavaScript without a copy: tensors in the memory of ArrayBuffers.
//!
//! The memory of a tensor that JavaScript shares is V8's always. A tensor over a typed array lies in the array's ArrayBuffer, for reading; a tensor whose
//! values JavaScript wants to write to (`asTypedArray`) moves into an ArrayBuffer made for it. The ArrayBuffer is held by
//! a strong reference and asked for its memory anew by every operation ([`Lender`]), because JavaScript may detach it
//! (`transfer`, also to another thread) or shrink it at any time between two calls. While a call runs it cannot: this
//! addon calls no JavaScript then, and a SharedArrayBuffer, which other threads write to, is refused.
//!
//! A tensor that is used up by being read (`tensor_take_buffer`) leaves its block of the pool to an ArrayBuffer instead of a
//! copy. The block goes back when V8 has let go of the buffer; such finalizers wait for the event loop, so
//! [`MOST_TAKEN_BYTES`] bounds what a loop that never yields can pile up.
//!
//! There is one [`HostMemory`] for an ArrayBuffer, whoever asks for it ([`LENDERS`]): so its lock covers every tensor in
//! it, and two tensors are known to share memory.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, ThreadId};

use napi::bindgen_prelude::{ArrayBuffer, Either3, FromNapiValue, Null, Object};
use napi::{Env, JsValue, sys};
use napi_derive::napi;
use spikenorm_core::{Backend, DType, Error, ErrorCode, Tensor, bail};
use spikenorm_cpu::{Cpu, HostMemory, Lender, Lent, LentMut};

use crate::device::{Device, on_device};
use crate::error::{Checked, Result, face, napi_failure};
use crate::handles::{device_of, insert_tensor, remove, tensor};
use crate::tensor::{expect_length, shape_of};
use crate::weak::{check, in_scope};

/// Bytes of the pool that ArrayBuffers may hold at once; beyond them the caller copies.
const MOST_TAKEN_BYTES: usize = 256 << 20;

static TAKEN_BYTES: AtomicUsize = AtomicUsize::new(0);

/// An ArrayBuffer of this thread that tensors lie in.
struct Known {
    env: sys::napi_env,
    /// The lender's reference, good for as long as `memory` lives.
    buffer: sys::napi_ref,
    memory: Weak<HostMemory>,
    needed: Arc<AtomicUsize>,
}

thread_local! {
    /// The environments of this thread that have lent memory, and whether they still run.
    static ENVIRONMENTS: RefCell<Vec<(sys::napi_env, Arc<AtomicBool>)>> = const { RefCell::new(Vec::new()) };
    /// The ArrayBuffers that tensors lie in, by the address of their first byte. One that has been detached may have
    /// left its address to another.
    static LENDERS: RefCell<HashMap<usize, Vec<Known>>> = RefCell::default();
}

/// A flag that is true until the environment ends.
fn life_of(env: &Env) -> Checked<Arc<AtomicBool>> {
    let known = ENVIRONMENTS.with_borrow(|all| all.iter().find(|(raw, _)| *raw == env.raw()).cloned());
    if let Some((_, is_alive)) = known {
        return Ok(is_alive);
    }
    let is_alive = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&is_alive);
    env.add_env_cleanup_hook(env.raw() as usize, move |raw| {
        flag.store(false, Ordering::Release);
        ENVIRONMENTS.with_borrow_mut(|all| all.retain(|(other, _)| *other as usize != raw));
    })
    .map_err(napi_failure)?;
    ENVIRONMENTS.with_borrow_mut(|all| all.push((env.raw(), Arc::clone(&is_alive))));
    Ok(is_alive)
}

/// An ArrayBuffer's memory as it is now.
#[derive(Clone, Copy)]
struct Bytes {
    data: *mut u8,
    length: usize,
}

impl Bytes {
    /// `buffer` is an ArrayBuffer, live in `env`, which is alive and of this thread.
    fn of(env: sys::napi_env, buffer: sys::napi_value) -> napi::Result<Self> {
        let (mut data, mut length) = (ptr::null_mut(), 0);
        // SAFETY: both are live, as the caller says; N-API refuses a value that is no ArrayBuffer.
        check(unsafe { sys::napi_get_arraybuffer_info(env, buffer, &mut data, &mut length) })?;
        Ok(Self { data: data.cast(), length })
    }
}

/// An ArrayBuffer's memory for the rest of a call.
struct View(Bytes);

// SAFETY: the memory is V8's, and stays where it is for as long as no JavaScript runs on the buffer's thread, which waits
// for the call that made the view. That call gives it to the threads of an operation and drops it before it returns.
unsafe impl Send for View {}
// SAFETY: as above; who writes has the only view, by the lock of the buffer's one `HostMemory`.
unsafe impl Sync for View {}

impl Lent for View {
    fn bytes(&self) -> &[u8] {
        let Bytes { data, length } = self.0;
        if length == 0 {
            return &[];
        }
        // SAFETY: V8 has said in this call that `length` bytes are there, and nothing moves or writes them until it
        // returns: JavaScript does not run, other threads do not have the buffer, and writers of this addon wait for the lock.
        unsafe { std::slice::from_raw_parts(data, length) }
    }
}

impl LentMut for View {
    fn bytes_mut(&mut self) -> &mut [u8] {
        let Bytes { data, length } = self.0;
        if length == 0 {
            return &mut [];
        }
        // SAFETY: as in `bytes`; and nothing reads them meanwhile, by the lock.
        unsafe { std::slice::from_raw_parts_mut(data, length) }
    }
}

/// An ArrayBuffer that lends its memory.
struct BufferLender {
    env: sys::napi_env,
    /// Strong, to the ArrayBuffer.
    buffer: sys::napi_ref,
    /// Key of [`LENDERS`].
    address: usize,
    /// Bytes that the tensors in it reach up to.
    needed: Arc<AtomicUsize>,
    is_writable: bool,
    thread: ThreadId,
    is_alive: Arc<AtomicBool>,
}

// SAFETY: the raw handles are used by `view` and `drop` alone, which do nothing with them on another thread than the one
// they belong to.
unsafe impl Send for BufferLender {}
// SAFETY: as above.
unsafe impl Sync for BufferLender {}

impl BufferLender {
    /// Whether N-API may be called: on the environment's thread, before its end.
    fn is_reachable(&self) -> bool {
        self.thread == thread::current().id() && self.is_alive.load(Ordering::Acquire)
    }

    fn view(&self) -> Checked<View> {
        if !self.is_reachable() {
            bail!(Internal, "the memory of a typed array was asked for outside of its thread");
        }
        let env = Env::from_raw(self.env);
        let bytes = in_scope(&env, || Bytes::of(self.env, referenced(self.env, self.buffer)?))
            .map_err(napi_failure)?;
        let needed = self.needed.load(Ordering::Relaxed);
        if bytes.length < needed {
            bail!(
                Disposed,
                "the typed array under the tensor has been transferred or shrunk: {} bytes are left of its buffer, {needed} are needed",
                bytes.length
            );
        }
        Ok(View(bytes))
    }
}

/// The value of a strong reference. `env` is alive and of this thread, and the reference has not been deleted.
fn referenced(env: sys::napi_env, reference: sys::napi_ref) -> napi::Result<sys::napi_value> {
    let mut value = ptr::null_mut();
    // SAFETY: as the caller says.
    check(unsafe { sys::napi_get_reference_value(env, reference, &mut value) })?;
    Ok(value)
}

impl Lender for BufferLender {
    fn lend(&self) -> Checked<Box<dyn Lent>> {
        Ok(Box::new(self.view()?))
    }

    fn lend_mut(&mut self) -> Checked<Box<dyn LentMut>> {
        if !self.is_writable {
            bail!(
                Argument,
                "a tensor over a typed array's memory is only read; clone() gives one to write to"
            );
        }
        Ok(Box::new(self.view()?))
    }
}

impl Drop for BufferLender {
    fn drop(&mut self) {
        if !self.is_reachable() {
            return;
        }
        // A thread that ends may have dropped the table before.
        let _ = LENDERS.try_with(|lenders| {
            let mut lenders = lenders.borrow_mut();
            if let Some(known) = lenders.get_mut(&self.address) {
                known.retain(|known| known.buffer != self.buffer);
                if known.is_empty() {
                    lenders.remove(&self.address);
                }
            }
        });
        // SAFETY: the environment is alive and of this thread; this is the only deletion. Where it has ended its references
        // have ended with it.
        unsafe { sys::napi_delete_reference(self.env, self.buffer) };
    }
}

/// What lends the memory of `buffer`, a live ArrayBuffer of this call.
fn lender_of(env: &Env, buffer: sys::napi_value, needed: usize, is_writable: bool) -> Checked<BufferLender> {
    let is_alive = life_of(env)?;
    let address = Bytes::of(env.raw(), buffer).map_err(napi_failure)?.data as usize;
    let mut reference = ptr::null_mut();
    // SAFETY: `buffer` is a live value of this call; a count of 1 makes the reference strong.
    check(unsafe { sys::napi_create_reference(env.raw(), buffer, 1, &mut reference) })
        .map_err(napi_failure)?;
    Ok(BufferLender {
        env: env.raw(),
        buffer: reference,
        address,
        needed: Arc::new(AtomicUsize::new(needed)),
        is_writable,
        thread: thread::current().id(),
        is_alive,
    })
}

/// Makes the memory of a lender known to whoever asks for its ArrayBuffer's.
fn remember(memory: &Arc<HostMemory>, known: Known, address: usize) {
    let known = Known { memory: Arc::downgrade(memory), ..known };
    LENDERS.with_borrow_mut(|lenders| lenders.entry(address).or_default().push(known));
}

impl BufferLender {
    fn known(&self) -> Known {
        Known { env: self.env, buffer: self.buffer, memory: Weak::new(), needed: Arc::clone(&self.needed) }
    }
}

/// Finds what `is_wanted` among the ArrayBuffers at an address that tensors still lie in.
fn find<R>(address: usize, is_wanted: impl Fn(&Known, &Arc<HostMemory>) -> Option<R>) -> Option<R> {
    LENDERS.with_borrow(|lenders| {
        let known = lenders.get(&address)?;
        known.iter().find_map(|known| is_wanted(known, &known.memory.upgrade()?))
    })
}

/// The memory of `buffer`, a live ArrayBuffer of this call, of which `needed` bytes are: for reading where it is new.
fn memory_of(env: &Env, buffer: sys::napi_value, needed: usize) -> Checked<Arc<HostMemory>> {
    let address = Bytes::of(env.raw(), buffer).map_err(napi_failure)?.data as usize;
    let known = find(address, |known, memory| {
        let mut is_same = false;
        // SAFETY: the environment of a known buffer is of this thread; if it is this one it is alive, and the reference is,
        // since its memory is.
        let is_equal = known.env == env.raw()
            && unsafe {
                let other = referenced(known.env, known.buffer).ok()?;
                sys::napi_strict_equals(known.env, other, buffer, &mut is_same) == sys::Status::napi_ok
            };
        (is_equal && is_same).then(|| {
            known.needed.fetch_max(needed, Ordering::Relaxed);
            Arc::clone(memory)
        })
    });
    if let Some(memory) = known {
        return Ok(memory);
    }
    let lender = lender_of(env, buffer, needed, false)?;
    let (known, address) = (lender.known(), lender.address);
    let memory = Arc::new(HostMemory::lent(lender));
    remember(&memory, known, address);
    Ok(memory)
}

/// A tensor over the memory of a typed array, which is not copied.
#[napi]
pub fn tensor_over_array(env: Env, array: Object<'_>, shape: Vec<i64>, dtype: String) -> Result<f64> {
    face(|| {
        let (shape, dtype) = (shape_of(&shape)?, DType::from_name(&dtype)?);
        let (mut kind, mut length, mut data, mut buffer, mut offset) =
            (0, 0, ptr::null_mut(), ptr::null_mut(), 0);
        // SAFETY: `env` and `array` are live for this call. Asking for the buffer moves the values of a small array,
        // which V8 keeps in its own heap, out to memory that stays where it is.
        check(unsafe {
            sys::napi_get_typedarray_info(
                env.raw(),
                array.value().value,
                &mut kind,
                &mut length,
                &mut data,
                &mut buffer,
                &mut offset,
            )
        })
        .map_err(|_| Error::new(ErrorCode::Argument, "data: expected a typed array"))?;
        let mut is_unshared = false;
        // SAFETY: `buffer` is a live value of this call.
        check(unsafe { sys::napi_is_arraybuffer(env.raw(), buffer, &mut is_unshared) })
            .map_err(napi_failure)?;
        if !is_unshared {
            bail!(
                Argument,
                "data: expected memory that only this thread writes to, got a SharedArrayBuffer's; tensor() copies it"
            );
        }
        expect_length(length, &shape)?;
        let (size, bytes) = (dtype.size(), length * dtype.size());
        if bytes > 0 && !((data as usize).is_multiple_of(size) && offset.is_multiple_of(size)) {
            bail!(Argument, "data: expected memory aligned to {size} bytes; tensor() copies it");
        }
        let memory = memory_of(&env, buffer, if bytes == 0 { 0 } else { offset + bytes })?;
        let offset = if bytes == 0 { 0 } else { offset / size };
        Ok(insert_tensor(&Cpu, Tensor { memory, offset, shape, dtype }))
    })
}

/// The tensor of a handle, for memory that JavaScript may write to.
fn writable(handle: f64) -> Checked<Tensor<HostMemory>> {
    if let device @ Device::Cuda(_) = device_of(handle)? {
        bail!(
            Device,
            "asTypedArray: expected a tensor on cpu, got one on {}; move it with to('cpu')",
            device.name()
        );
    }
    tensor(&Cpu, "tensor", handle)
}

/// The ArrayBuffer that a tensor's memory lies in and may be written in; or how many bytes one must have for it to
/// move there (`tensor_move_to_buffer`); or null, for a tensor over an array of the caller's.
#[napi]
pub fn tensor_buffer(env: Env, handle: f64) -> Result<Either3<ArrayBuffer<'static>, f64, Null>> {
    face(|| {
        let tensor = writable(handle)?;
        if let Some(bytes) = tensor.memory.pool_bytes()? {
            return Ok(Either3::B(bytes as f64));
        }
        let address = tensor.memory.read()?.slice::<u8>(0, 1).as_ptr() as usize;
        let buffer = find(address, |known, memory| {
            (known.env == env.raw() && Arc::ptr_eq(memory, &tensor.memory)).then_some(known.buffer)
        });
        match buffer {
            Some(buffer) if tensor.memory.write().is_ok() => {
                let buffer = referenced(env.raw(), buffer).map_err(napi_failure)?;
                // SAFETY: `buffer` is a live ArrayBuffer of this call.
                unsafe { ArrayBuffer::from_napi_value(env.raw(), buffer) }
                    .map(Either3::A)
                    .map_err(napi_failure)
            }
            _ => Ok(Either3::C(Null)),
        }
    })
}

/// Moves a tensor's memory, with everything that shares it, into an ArrayBuffer of which nobody else has the bytes.
#[napi]
pub fn tensor_move_to_buffer(env: Env, handle: f64, buffer: Object<'_>) -> Result<()> {
    face(|| {
        let tensor = writable(handle)?;
        let needed = tensor.memory.pool_bytes()?.unwrap_or(0);
        let raw = buffer.value().value;
        let length = Bytes::of(env.raw(), raw)
            .map_err(|_| Error::new(ErrorCode::Argument, "buffer: expected an ArrayBuffer"))?
            .length;
        if length < needed || needed == 0 {
            bail!(Argument, "buffer: expected {needed} bytes for memory of the pool, got {length}");
        }
        let lender = lender_of(&env, raw, needed, true)?;
        let (known, address) = (lender.known(), lender.address);
        tensor.memory.move_to(lender)?;
        remember(&tensor.memory, known, address);
        Ok(())
    })
}

/// Where a tensor's first value lies in its memory, in bytes.
#[napi]
pub fn tensor_byte_offset(handle: f64) -> Result<f64> {
    face(|| writable(handle).map(|tensor| (tensor.offset * tensor.dtype.size()) as f64))
}

/// The memory of an ArrayBuffer that no tensor lies in, for the rest of the call, to be written to.
pub fn unshared(env: &Env, target: &Object<'_>) -> Checked<impl LentMut + use<>> {
    let bytes = Bytes::of(env.raw(), target.value().value)
        .map_err(|_| Error::new(ErrorCode::Argument, "target: expected an ArrayBuffer"))?;
    if bytes.length > 0 && find(bytes.data as usize, |_, _| Some(())).is_some() {
        bail!(Argument, "target: expected an ArrayBuffer that no tensor lies in");
    }
    Ok(View(bytes))
}

/// Copies a tensor's bytes to `target`, an ArrayBuffer of as many that no tensor lies in. Waits for the device.
#[napi]
pub fn tensor_read(env: Env, handle: f64, target: Object<'_>) -> Result<()> {
    face(|| {
        let mut target = unshared(&env, &target)?;
        let target = target.bytes_mut();
        on_device!(device_of(handle)?, backend => {
            let tensor = tensor(backend, "tensor", handle)?;
            if target.len() != tensor.bytes() {
                bail!(Argument, "target: expected {} bytes, got {}", tensor.bytes(), target.len());
            }
            backend.read(&tensor, |values| target.copy_from_slice(values))
        })
    })
}

/// What an ArrayBuffer over a block of the pool owns.
struct Taken {
    _memory: Arc<HostMemory>,
    bytes: usize,
}

impl Drop for Taken {
    fn drop(&mut self) {
        TAKEN_BYTES.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

unsafe extern "C" fn give_back(_env: sys::napi_env, _data: *mut c_void, taken: *mut c_void) {
    // SAFETY: the pointer came from `Box::into_raw` below, and V8 finalizes a buffer once.
    let taken = unsafe { Box::from_raw(taken.cast::<Taken>()) };
    // A panic must not leave a foreign frame.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(taken)));
}

/// Frees a handle and leaves its tensor's memory to an ArrayBuffer. Nothing, and the handle as it is, where the memory has
/// to be copied: another tensor or JavaScript shares it, the runtime wants all buffers in its own heap, or too much has
/// been taken already.
#[napi]
pub fn tensor_take_buffer(env: Env, handle: f64) -> Result<Option<ArrayBuffer<'static>>> {
    face(|| {
        let tensor = writable(handle)?;
        let bytes = tensor.bytes();
        // One owner is the registry, one is this call.
        let is_shared = Arc::strong_count(&tensor.memory) > 2 || tensor.memory.pool_bytes()?.is_none();
        let is_room = TAKEN_BYTES.load(Ordering::Relaxed) + bytes <= MOST_TAKEN_BYTES;
        if bytes == 0 || is_shared || !is_room {
            return Ok(None);
        }
        let data = {
            let mut memory = tensor.memory.write()?;
            memory.slice::<u8>(tensor.offset * tensor.dtype.size(), bytes).as_mut_ptr()
        };
        TAKEN_BYTES.fetch_add(bytes, Ordering::Relaxed);
        let taken = Box::into_raw(Box::new(Taken { _memory: tensor.memory, bytes }));
        let mut buffer = ptr::null_mut();
        // SAFETY: `data` points to `bytes` bytes of a block that `taken` keeps alive and in its place until V8 calls
        // `give_back`. Nothing native reads or writes it: the last handle of the memory is freed below.
        let status = unsafe {
            sys::napi_create_external_arraybuffer(
                env.raw(),
                data.cast(),
                bytes,
                Some(give_back),
                taken.cast(),
                &mut buffer,
            )
        };
        if status != sys::Status::napi_ok {
            // SAFETY: N-API refused, so nobody else has the pointer.
            drop(unsafe { Box::from_raw(taken) });
            if status == sys::Status::napi_no_external_buffers_allowed {
                return Ok(None);
            }
            check(status).map_err(napi_failure)?;
        }
        remove(&env, handle);
        // SAFETY: `buffer` is the live ArrayBuffer just made.
        unsafe { ArrayBuffer::from_napi_value(env.raw(), buffer) }.map(Some).map_err(napi_failure)
    })
}
