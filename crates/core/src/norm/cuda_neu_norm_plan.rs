//! How NeuNorm is laid over a GPU, as plain data. A block owns a strip of pixels with all channels of one
//! sample, or in backward of a group of samples, whose weight gradients it adds up.

use super::CudaDevice;
use crate::{DType, Grid, Layout, Result, bail};

/// Channels a thread keeps in registers between its two uses of them.
const KEPT: usize = 4;
/// Bytes of pixels beyond which a wider strip gains nothing: a cache line.
const STRIP_BYTES: usize = 128;
/// Products a backward adds up in one float32 before they are widened.
const LONGEST_SUM: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudaNeuNormPlan {
    pub grid: Grid,
    pub layout: Layout,
    pub dtype: DType,
    /// Neighbouring pixels a thread moves at once.
    pub vector: usize,
    /// Vectors side by side in a strip.
    pub columns: usize,
    /// Threads that share a column, over channels.
    pub lanes: usize,
    pub threads: usize,
    pub strips: usize,
    pub groups: usize,
    pub group_samples: usize,
    pub shared: usize,
}

impl CudaNeuNormPlan {
    /// `alignment` is a power of two that divides the address of every tensor of the pass.
    pub fn new(
        backward: bool,
        grid: Grid,
        layout: Layout,
        dtype: DType,
        alignment: usize,
        device: &CudaDevice,
    ) -> Result<Self> {
        if grid.is_empty() || [grid.t, grid.n, grid.c, grid.s].into_iter().any(|extent| extent >= 1 << 31) {
            bail!(Shape, "input: {} elements cannot be laid over a CUDA grid", grid.len());
        }
        let size = dtype.size();
        let wide = if dtype == DType::F64 { 2 } else { 4 };
        let whole = grid.s.is_multiple_of(wide) && alignment.is_multiple_of(wide * size);
        let vector = if layout == Layout::Contiguous && whole { wide } else { 1 };
        let vectors = grid.s.div_ceil(vector);
        let kept_lanes = grid.c.div_ceil(KEPT).next_power_of_two().min(device.threads);
        let mut columns = (device.threads / kept_lanes)
            .min(STRIP_BYTES / (vector * size))
            .min(vectors.next_power_of_two())
            .max(1);
        // Narrower strips while the device is not full, as long as they are whole sectors.
        while columns * vector * size > 32 && grid.n * vectors.div_ceil(columns) < 2 * device.multiprocessors
        {
            columns /= 2;
        }
        let strips = vectors.div_ceil(columns);
        let lanes = (device.threads / columns).min(grid.c.next_power_of_two());
        let group_samples = if backward {
            let full = grid.n * strips / (2 * device.multiprocessors);
            (LONGEST_SUM / grid.t).min(full).clamp(1, grid.n)
        } else {
            1
        };
        let groups = grid.n.div_ceil(group_samples);
        if strips * groups >= 1 << 31 {
            bail!(Shape, "input: {} elements cannot be laid over a CUDA grid", grid.len());
        }
        Ok(Self {
            grid,
            layout,
            dtype,
            vector,
            columns,
            lanes,
            threads: (columns * lanes).next_multiple_of(32),
            strips,
            groups,
            group_samples,
            shared: (lanes + 1) * columns * vector * 8,
        })
    }

    pub fn blocks(&self) -> usize {
        self.strips * self.groups
    }
}
