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

/// What the kernels are compiled to: machine code such as `sm_90`, and PTX such as `compute_75`, which the driver
/// compiles for devices of that compute capability and newer ones.
pub fn targets() -> impl Iterator<Item = &'static str> {
    option_env!("SPIKENORM_KERNEL_TARGETS").unwrap_or_default().split_whitespace()
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
