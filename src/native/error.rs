//! Errors on their way to JavaScript: the code becomes `error.code`. Panics become errors.

use std::panic::{AssertUnwindSafe, catch_unwind};

use spikenorm_core::{Error, ErrorCode};

/// What every exported function returns. The name matters: `#[napi]` looks for it.
pub type Result<T> = napi::Result<T, &'static str>;

/// What everything below the exported functions returns.
pub type Checked<T> = spikenorm_core::Result<T>;

/// Runs the body of an exported function. A panic is a defect of this library and reaches JavaScript as
/// `ERR_INTERNAL`, never as a crash of the process.
pub fn face<T>(body: impl FnOnce() -> Checked<T>) -> Result<T> {
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let what = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("unknown panic");
        Err(Error::new(ErrorCode::Internal, format!("a defect in spikenorm, please report it: {what}")))
    });
    result.map_err(|error| {
        let message = match error.message {
            // There was no memory for it.
            message if message.is_empty() => "out of memory".into(),
            message => message,
        };
        napi::Error::new(error.code.as_str(), message)
    })
}

/// A failure of N-API itself, which no argument of the user's can cause.
pub fn napi_failure(error: napi::Error) -> Error {
    Error::new(ErrorCode::Internal, format!("N-API: {}", error.reason))
}
