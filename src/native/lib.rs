//! The N-API face: numbers, handles and bytes in, handles and bytes out. Shapes are checked in
//! `spikenorm-core`, values computed in a backend; what stays here is turning one into the other.
//!
//! Everything native is known to JavaScript as a number (see [`handles`]). `unsafe` stands in two files:
//! `weak.rs`, which watches JavaScript objects for their collection, and `array_memory.rs`, which shares memory with them.
#![deny(unsafe_code)]

mod array_memory;
mod cuda;
mod device;
mod error;
mod handles;
mod kit_conv;
mod kit_linear;
mod kit_loss;
mod kit_neuron;
mod kit_optim;
mod kit_pool;
mod neu_norm;
mod norm;
mod random;
mod regular_file;
mod room;
mod runtime;
mod safetensors;
mod tensor;
mod tensors;
mod weak;
