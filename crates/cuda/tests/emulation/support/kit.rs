//! What the cases of the training kit share.

use spikenorm_core::DType;
use spikenorm_core::norm::CudaDevice;
use spikenorm_cuda::launches::Launch;

use super::buffer::Buffer;
use super::case::{Random, small_device};
use super::emulator::{Emulator, SCHEDULES};
use super::norm::same_bits;

pub const FLOATS: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

/// One value, less than a warp, an odd number past the grid's threads, a round one.
pub const SIZES: [usize; 4] = [1, 31, 1003, 4096];

/// A device so small that threads take turns.
pub fn one_multiprocessor() -> CudaDevice {
    CudaDevice { multiprocessors: 1, ..small_device(64, 16 << 10) }
}

/// Runs `launch` where there is one.
pub fn run<P>(emulator: &Emulator, launch: Option<Launch<P>>, schedule: u32) -> Result<(), String> {
    launch.map_or(Ok(()), |launch| emulator.run(&launch, schedule))
}

/// The outputs of `pass`, which must have the same bits under every schedule.
pub fn under_every_schedule(
    mut pass: impl FnMut(u32) -> Result<Vec<Buffer>, String>,
) -> Result<Vec<Buffer>, String> {
    let mut first = None;
    let mut kept = None;
    for schedule in 0..SCHEDULES {
        let outputs = pass(schedule)?;
        same_bits(&mut first, &outputs.iter().collect::<Vec<_>>(), schedule)?;
        kept.get_or_insert(outputs);
    }
    Ok(kept.unwrap_or_default())
}

/// Normal numbers as `dtype` holds them.
pub fn normals(seed: usize, count: usize, dtype: DType) -> Vec<f64> {
    super::buffer::rounded(&Random::new(seed as u64).normals(count, 0.1, 1.0), dtype)
}
