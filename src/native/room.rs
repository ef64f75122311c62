//! Whether there is memory for what is about to be loaded.

use napi_derive::napi;
use spikenorm_core::workspace;

use crate::error::{Checked, Result, face};

/// Throws `ERR_OUT_OF_MEMORY` unless so many bytes can be had at once. To be asked for all of a file before any of it is
/// loaded: an operating system that promises more than it has would end the process half-way.
#[napi(js_name = "expectRoom")]
pub fn expect_room_for(path: String, bytes: f64) -> Result<()> {
    face(|| expect_room(&path, bytes))
}

/// The same. A float: a sum past counting is too large in any case.
pub fn expect_room(path: &str, bytes: f64) -> Checked<()> {
    workspace::expect_room(bytes as usize).map_err(|_| {
        workspace::out_of_memory(format_args!("{path}: there is no memory for the {bytes} bytes it needs"))
    })
}
