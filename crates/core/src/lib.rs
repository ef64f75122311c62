//! What spikenorm is made of before any device is involved: dtypes, shapes, the specification of
//! every layer, the plans that split its work, the errors, and what V8 is told of the memory.
//!
//! A call is checked and planned here and computed in a backend (`crates/cpu`, `crates/cuda`),
//! which implements [`Backend`].
#![forbid(unsafe_code)]

mod backend;
mod dtype;
mod error;
mod external_memory;
pub mod kit;
mod neu_norm;
pub mod norm;
mod shape;
mod tensor;
pub mod workspace;

pub use backend::Backend;
pub use dtype::DType;
pub use error::{Error, ErrorCode, Result};
pub use external_memory::ExternalMemory;
pub use neu_norm::{NeuNormForward, NeuNormGrads, NeuNormOutput, NeuNormSaved, NeuNormSpec};
pub use shape::{Grid, Layout, StepMode, element_count, show};
pub use tensor::Tensor;
