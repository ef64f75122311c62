//! The CUDA backend: kernels compiled at build time into one fat binary, the parameters they take, and
//! the plans of `spikenorm_core::norm` turned into launches.
#![forbid(unsafe_code)]

pub mod fatbin;
pub mod launches;
pub mod params;
