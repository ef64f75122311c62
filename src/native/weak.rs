//! Weak references to JavaScript objects, polled.
//!
//! N-API finalizers run only when the event loop turns, so a synchronous training loop would never free
//! what it drops. A weak reference, in contrast, is emptied by the garbage collector itself and can be asked
//! at any time; that is what this file is for, and why it speaks raw N-API.
#![allow(unsafe_code)]

use std::ptr;

use napi::{Env, JsValue, bindgen_prelude::Object, sys};

/// A weak reference that belongs to one environment (one JavaScript thread).
pub struct WeakObject {
    env: sys::napi_env,
    reference: sys::napi_ref,
}

impl WeakObject {
    pub fn new(env: &Env, object: &Object<'_>) -> napi::Result<Self> {
        let mut reference = ptr::null_mut();
        // SAFETY: `env` and `object` are live for this call, as their borrow says; a count of 0 makes the
        // reference weak.
        let status =
            unsafe { sys::napi_create_reference(env.raw(), object.value().value, 0, &mut reference) };
        check(status)?;
        Ok(Self { env: env.raw(), reference })
    }

    /// Whether the object belongs to this environment.
    pub fn is_of(&self, env: &Env) -> bool {
        self.env == env.raw()
    }

    /// Whether the garbage collector has taken the object. Only for references of `env`.
    pub fn is_gone(&self, env: &Env) -> bool {
        if !self.is_of(env) {
            return false;
        }
        let mut value = ptr::null_mut();
        // SAFETY: the reference was created in this environment, which is alive since the caller holds it, and
        // has not been deleted: `delete` consumes it.
        let status = unsafe { sys::napi_get_reference_value(self.env, self.reference, &mut value) };
        status == sys::Status::napi_ok && value.is_null()
    }

    /// Gives the reference back. Without it the environment frees it when it ends.
    pub fn delete(self, env: &Env) {
        if self.is_of(env) {
            // SAFETY: as in `is_gone`; taking `self` makes this the only deletion.
            unsafe { sys::napi_delete_reference(self.env, self.reference) };
        }
    }
}

/// Runs `body` in a handle scope of its own, so that thousands of polled values do not pile up in the
/// caller's.
pub fn in_scope<R>(env: &Env, body: impl FnOnce() -> R) -> R {
    let mut scope = ptr::null_mut();
    // SAFETY: `env` is live; the scope is closed below, on this thread, in the reverse order of opening.
    let opened = unsafe { sys::napi_open_handle_scope(env.raw(), &mut scope) } == sys::Status::napi_ok;
    let result = body();
    if opened {
        // SAFETY: opened above and not closed since.
        unsafe { sys::napi_close_handle_scope(env.raw(), scope) };
    }
    result
}

pub fn check(status: sys::napi_status) -> napi::Result<()> {
    if status == sys::Status::napi_ok {
        Ok(())
    } else {
        Err(napi::Error::from_status(napi::Status::from(status)))
    }
}
