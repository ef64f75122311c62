//! Memory shared with JavaScript without a copy: a tensor over a typed array's memory, and an ArrayBuffer over a
//! tensor's.
//!
//! **In.** The array's ArrayBuffer is held by a strong reference and asked for its memory anew by every operation
//! ([`ArrayLender::lend`]), because JavaScript may detach it (a transfer to another thread) or shrink it at any time
//! between two calls. While a call runs it cannot: this addon calls no JavaScript, and a SharedArrayBuffer, which other
//! threads write to, is refused.
//!
//! **Out.** The ArrayBuffer's finalizer owns a reference to the memory, so that the block goes back to the pool only
//! when V8 has let go of the last buffer over it. Finalizers wait for the event loop; [`MOST_SHARED_BYTES`] bounds what
//! a loop that never yields can pile up.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, ThreadId};

use napi::bindgen_prelude::{ArrayBuffer, FromNapiValue, Object};
use napi::{Env, JsValue, sys};
use napi_derive::napi;
use spikenorm_core::{DType, Error, ErrorCode, Tensor, bail};
use spikenorm_cpu::{Cpu, HostMemory, Lender};

use crate::device::Device;
use crate::error::{Checked, Result, face, napi_failure};
use crate::handles::{device_of, insert_tensor, tensor};
use crate::tensor::{expect_length, shape_of};
use crate::weak::{check, in_scope};

/// Bytes of tensors that ArrayBuffers may hold at once; beyond them the caller copies.
const MOST_SHARED_BYTES: usize = 256 << 20;

static SHARED_BYTES: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The environments of this thread that have lent memory, and whether they still run.
    static ENVIRONMENTS: RefCell<Vec<(sys::napi_env, Arc<AtomicBool>)>> = const { RefCell::new(Vec::new()) };
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

/// A piece of an ArrayBuffer.
struct ArrayLender {
    env: sys::napi_env,
    /// Strong, to the ArrayBuffer.
    buffer: sys::napi_ref,
    offset: usize,
    bytes: usize,
    thread: ThreadId,
    is_alive: Arc<AtomicBool>,
}

// SAFETY: the raw handles are used by `lend` and `drop` alone, which do nothing with them on another thread than the
// one they belong to.
unsafe impl Send for ArrayLender {}
// SAFETY: as above.
unsafe impl Sync for ArrayLender {}

impl ArrayLender {
    /// Whether N-API may be called: on the environment's thread, before its end.
    fn is_reachable(&self) -> bool {
        self.thread == thread::current().id() && self.is_alive.load(Ordering::Acquire)
    }

    /// Address and length of the ArrayBuffer's memory as they are now.
    fn memory(&self) -> napi::Result<(*const u8, usize)> {
        let env = Env::from_raw(self.env);
        in_scope(&env, || {
            let mut buffer = ptr::null_mut();
            // SAFETY: the environment is alive and of this thread (`is_reachable`, asked by `lend`); the reference is
            // deleted by `drop` alone.
            check(unsafe { sys::napi_get_reference_value(self.env, self.buffer, &mut buffer) })?;
            let (mut data, mut length) = (ptr::null_mut(), 0);
            // SAFETY: as above, and the value is an ArrayBuffer kept alive by the strong reference.
            check(unsafe { sys::napi_get_arraybuffer_info(self.env, buffer, &mut data, &mut length) })?;
            Ok((data.cast_const().cast(), length))
        })
    }
}

impl Lender for ArrayLender {
    fn lend(&self) -> Checked<&[u8]> {
        if !self.is_reachable() {
            bail!(Internal, "the memory of a typed array was asked for outside of its thread");
        }
        let (data, length) = self.memory().map_err(napi_failure)?;
        if length < self.offset + self.bytes {
            bail!(
                Disposed,
                "the typed array under the tensor has been transferred or shrunk: {} bytes are left of its buffer, {} are needed",
                length,
                self.offset + self.bytes
            );
        }
        if self.bytes == 0 {
            return Ok(&[]);
        }
        // SAFETY: V8 has just said that `length` bytes are there, and the piece lies within them. They stay there and
        // nobody writes to them for as long as this thread runs no JavaScript: until the call that asked returns to it,
        // which ends the borrow. Other threads cannot: the buffer is not shared.
        Ok(unsafe { std::slice::from_raw_parts(data.add(self.offset), self.bytes) })
    }
}

impl Drop for ArrayLender {
    fn drop(&mut self) {
        if self.is_reachable() {
            // SAFETY: the environment is alive and of this thread; this is the only deletion. Where it has ended its
            // references have ended with it.
            unsafe { sys::napi_delete_reference(self.env, self.buffer) };
        }
    }
}

/// A tensor over the memory of a typed array, which is not copied.
#[napi]
pub fn tensor_over_array(env: Env, array: Object<'_>, shape: Vec<i64>, dtype: String) -> Result<u32> {
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
        let bytes = length * dtype.size();
        if bytes > 0 && !(data as usize).is_multiple_of(dtype.size()) {
            bail!(Argument, "data: expected memory aligned to {} bytes; tensor() copies it", dtype.size());
        }
        let is_alive = life_of(&env)?;
        let mut reference = ptr::null_mut();
        // SAFETY: `buffer` is a live value of this call; a count of 1 makes the reference strong.
        check(unsafe { sys::napi_create_reference(env.raw(), buffer, 1, &mut reference) })
            .map_err(napi_failure)?;
        let lender = ArrayLender {
            env: env.raw(),
            buffer: reference,
            offset,
            bytes,
            thread: thread::current().id(),
            is_alive,
        };
        Ok(insert_tensor(&Cpu, Tensor::new(HostMemory::lent(lender), &shape, dtype)))
    })
}

/// What an ArrayBuffer over a tensor's memory owns.
struct Shared {
    _memory: Arc<HostMemory>,
    bytes: usize,
}

impl Drop for Shared {
    fn drop(&mut self) {
        SHARED_BYTES.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

unsafe extern "C" fn let_go(_env: sys::napi_env, _data: *mut c_void, shared: *mut c_void) {
    // SAFETY: the pointer came from `Box::into_raw` below, and V8 finalizes a buffer once.
    let shared = unsafe { Box::from_raw(shared.cast::<Shared>()) };
    // A panic must not leave a foreign frame.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(shared)));
}

/// An ArrayBuffer over a tensor's memory, or nothing where it has to be copied: memory that was lent itself, a runtime
/// that wants all buffers in its own heap, or too much already shared.
#[napi]
pub fn tensor_shared_buffer(env: Env, handle: u32) -> Result<Option<ArrayBuffer<'static>>> {
    face(|| {
        if let device @ Device::Cuda(_) = device_of(handle)? {
            bail!(
                Device,
                "asTypedArray: expected a tensor on cpu, got one on {}; move it with to('cpu')",
                device.name()
            );
        }
        let tensor = tensor(&Cpu, "tensor", handle)?;
        let bytes = tensor.bytes();
        let is_room = SHARED_BYTES.load(Ordering::Relaxed) + bytes <= MOST_SHARED_BYTES;
        if bytes == 0 || tensor.memory.is_lent() || !is_room {
            return Ok(None);
        }
        let data = {
            let mut memory = tensor.memory.write()?;
            memory.slice::<u8>(tensor.offset * tensor.dtype.size(), bytes).as_mut_ptr()
        };
        SHARED_BYTES.fetch_add(bytes, Ordering::Relaxed);
        let shared = Box::into_raw(Box::new(Shared { _memory: Arc::clone(&tensor.memory), bytes }));
        let mut buffer = ptr::null_mut();
        // SAFETY: `data` points to `bytes` bytes of a block that `shared` keeps alive and in its place until V8 calls
        // `let_go`. JavaScript reads and writes them between calls of this addon, when none borrows them.
        let status = unsafe {
            sys::napi_create_external_arraybuffer(
                env.raw(),
                data.cast(),
                bytes,
                Some(let_go),
                shared.cast(),
                &mut buffer,
            )
        };
        if status != sys::Status::napi_ok {
            // SAFETY: N-API refused, so nobody else has the pointer.
            drop(unsafe { Box::from_raw(shared) });
            if status == sys::Status::napi_no_external_buffers_allowed {
                return Ok(None);
            }
            check(status).map_err(napi_failure)?;
        }
        // SAFETY: `buffer` is the live ArrayBuffer just made.
        unsafe { ArrayBuffer::from_napi_value(env.raw(), buffer) }.map(Some).map_err(napi_failure)
    })
}
