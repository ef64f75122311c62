//! Emulated launches beside a naive float64 reference.
#![allow(dead_code)] // Each test file uses a part of it.

pub mod buffer;
pub mod case;
pub mod emulator;
pub mod kit;
pub mod layer_case;
pub mod layers;
pub mod neu_norm;
pub mod norm;
pub mod reference;
pub mod tolerance;
