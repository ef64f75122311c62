//! The CUDA backend: kernels compiled at build time into one fat binary, the parameters they take, the
//! plans of `spikenorm_core::norm` turned into launches, and the driver that runs them.
//!
//! Everything above [`driver`] is data and is tested without a GPU.
#![deny(unsafe_code)]

#[allow(unsafe_code)]
pub mod driver;
pub mod fatbin;
pub mod kit;
pub mod launches;
pub mod params;
