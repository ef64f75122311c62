//! Errors with a stable code. They are made where the fact is known and carried to JavaScript as
//! `SpikenormError { code, message }`.

use std::fmt::{self, Write};

pub type Result<T> = std::result::Result<T, Error>;

/// The codes users match on. Renaming one is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    Shape,
    Dtype,
    Device,
    StepMode,
    TimeStep,
    BatchStatistics,
    Argument,
    StateDict,
    NoForward,
    Disposed,
    File,
    CudaUnavailable,
    Cuda,
    OutOfMemory,
    /// A defect of this library: a panic caught at the boundary.
    Internal,
}

impl ErrorCode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shape => "ERR_SHAPE",
            Self::Dtype => "ERR_DTYPE",
            Self::Device => "ERR_DEVICE",
            Self::StepMode => "ERR_STEP_MODE",
            Self::TimeStep => "ERR_TIME_STEP",
            Self::BatchStatistics => "ERR_BATCH_STATISTICS",
            Self::Argument => "ERR_ARGUMENT",
            Self::StateDict => "ERR_STATE_DICT",
            Self::NoForward => "ERR_NO_FORWARD",
            Self::Disposed => "ERR_DISPOSED",
            Self::File => "ERR_FILE",
            Self::CudaUnavailable => "ERR_CUDA_UNAVAILABLE",
            Self::Cuda => "ERR_CUDA",
            Self::OutOfMemory => "ERR_OUT_OF_MEMORY",
            Self::Internal => "ERR_INTERNAL",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// More than a message about memory has.
const MESSAGE_BYTES: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub code: ErrorCode,
    pub message: String,
}

impl Error {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// `ERR_OUT_OF_MEMORY`. Where there is no memory for the message either, as in a thread that shares none of what another
    /// lets go, it is empty.
    pub fn out_of_memory(message: fmt::Arguments<'_>) -> Self {
        let mut text = String::new();
        if text.try_reserve(MESSAGE_BYTES).is_ok() {
            let _ = text.write_fmt(message);
        }
        Self { code: ErrorCode::OutOfMemory, message: text }
    }

    /// The same error, naming what it is about.
    pub fn within(self, what: &str) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }
}

/// `bail!(Shape, "expected {} channels, got {}", a, b)` returns an [`Error`] with that code.
#[macro_export]
macro_rules! bail {
    ($code:ident, $($message:tt)+) => {
        return Err($crate::Error::new($crate::ErrorCode::$code, format!($($message)+)))
    };
}
