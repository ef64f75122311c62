//! Average and maximum pooling, each plane on its own.
//!
//! As in PyTorch: the average divides by the whole kernel area, padding (zeros) included; the maximum
//! ignores padding, takes the first of equal values, and a NaN wins.

use super::{Frames, Window};
use crate::{DType, Result, StepMode, Tensor, bail};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    pub window: Window,
}

impl PoolSpec {
    /// Refuses windows that cannot slide or could lie in the padding alone.
    pub fn check(&self) -> Result<()> {
        self.window.check()?;
        let Window { kernel, padding, .. } = self.window;
        if (0..2).any(|axis| 2 * padding[axis] > kernel[axis]) {
            bail!(
                Argument,
                "padding: expected at most half of kernelSize [{}, {}], got [{}, {}]",
                kernel[0],
                kernel[1],
                padding[0],
                padding[1]
            );
        }
        Ok(())
    }

    /// Reads `shape`, `[N, C, H, W]` or `[T, N, C, H, W]`, as frames.
    pub fn frames(&self, shape: &[usize], mode: StepMode) -> Result<Frames> {
        self.window.frames(shape, mode)
    }

    /// Bytes of an index into the window.
    pub fn index_bytes(&self) -> usize {
        if self.window.kernel[0] * self.window.kernel[1] <= 256 { 1 } else { 4 }
    }
}

/// Shapes and dtype alone.
#[derive(Clone, Debug)]
pub struct AvgPoolSaved {
    pub spec: PoolSpec,
    pub frames: Frames,
    pub input_shape: Vec<usize>,
    pub dtype: DType,
}

/// Where each maximum was.
pub struct MaxPoolSaved<M> {
    pub spec: PoolSpec,
    pub frames: Frames,
    pub input_shape: Vec<usize>,
    pub dtype: DType,
    /// uint8 `[outputs, index_bytes]`: position in the window, row by row, in one byte or four.
    pub indices: Tensor<M>,
}

impl AvgPoolSaved {
    /// Shape of the output, which is that of its gradient.
    pub fn output_shape(&self) -> Vec<usize> {
        self.frames.output_shape(&self.input_shape, self.frames.channels)
    }
}

impl<M> MaxPoolSaved<M> {
    /// Shape of the output, which is that of its gradient.
    pub fn output_shape(&self) -> Vec<usize> {
        self.frames.output_shape(&self.input_shape, self.frames.channels)
    }
}
