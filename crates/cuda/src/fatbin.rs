//! The compiled kernels, where this build has them.

/// The fat binary, or why there is none.
#[cfg(spikenorm_kernels)]
pub fn kernels() -> Result<&'static [u8], &'static str> {
    Ok(include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin")))
}

#[cfg(not(spikenorm_kernels))]
pub fn kernels() -> Result<&'static [u8], &'static str> {
    Err(env!("SPIKENORM_NO_KERNELS_REASON"))
}

/// What ptxas printed about each kernel.
#[cfg(spikenorm_kernels)]
pub fn compiler_report() -> Option<&'static str> {
    Some(include_str!(concat!(env!("OUT_DIR"), "/kernels.ptxas.txt")))
}

#[cfg(not(spikenorm_kernels))]
pub fn compiler_report() -> Option<&'static str> {
    None
}
