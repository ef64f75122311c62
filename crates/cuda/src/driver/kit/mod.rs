//! The training kit on a device: plan, allocate, launch.

mod conv;
mod linear;
mod steps;
