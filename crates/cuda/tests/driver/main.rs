//! The host's side of the launcher: memory, graphs, events, several devices, what can go wrong. On a GPU where
//! there is one, else on the emulated driver (`npm test`, or scripts/emulated-driver.mjs), which runs work as
//! late as it may; elsewhere these tests say why they skip.

#![allow(clippy::unwrap_used)]

mod devices;
mod emulated;
mod event;
mod external;
mod failing;
mod faults;
mod graph;
mod memory;
mod support;
mod transfer;
