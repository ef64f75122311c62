//! Errors with a stable code. They are made where the fact is known and carried to JavaScript as
//! `SpikenormError { code, message }`.

use std::fmt;

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
