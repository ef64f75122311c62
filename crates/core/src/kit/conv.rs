//! Two-dimensional convolution (a cross-correlation, as in PyTorch).
//!
//! ```text
//! forward   y[n, o, p] = b[o] + Σ_{c, i} w[o, c, i] · x[n, c, s·p + i − padding]
//! backward  dx = the transpose of that map applied to dy
//!           dw[o, c, i] = Σ_{n, p} dy[n, o, p] · x[n, c, s·p + i − padding]      db[o] = Σ_{n, p} dy
//! ```

use super::{Frames, Window};
use crate::{Result, StepMode, Tensor, bail, element_count, show};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conv2dSpec {
    pub in_channels: usize,
    pub out_channels: usize,
    pub window: Window,
}

impl Conv2dSpec {
    /// Refuses arguments no convolution can have.
    pub fn check(&self) -> Result<()> {
        for (name, channels) in [("inChannels", self.in_channels), ("outChannels", self.out_channels)] {
            if channels == 0 {
                bail!(Argument, "{name}: expected an integer of at least 1, got 0");
            }
        }
        self.window.check()?;
        element_count(&self.weight_shape()).map(|_| ())
    }

    pub fn weight_shape(&self) -> [usize; 4] {
        let [height, width] = self.window.kernel;
        [self.out_channels, self.in_channels, height, width]
    }

    /// Products summed into one value of the output: inChannels · kernel area.
    pub fn fan_in(&self) -> usize {
        self.in_channels * self.window.kernel[0] * self.window.kernel[1]
    }

    /// Reads `shape`, `[N, C, H, W]` or `[T, N, C, H, W]`, as frames.
    pub fn frames(&self, shape: &[usize], mode: StepMode) -> Result<Frames> {
        let frames = self.window.frames(shape, mode)?;
        if frames.channels != self.in_channels {
            bail!(
                Shape,
                "input: expected inChannels = {} channels at axis {}, got {} in shape {}",
                self.in_channels,
                shape.len() - 3,
                frames.channels,
                show(shape)
            );
        }
        Ok(frames)
    }
}

pub struct Conv2dForward<'a, M> {
    pub spec: &'a Conv2dSpec,
    pub frames: Frames,
    pub x: &'a Tensor<M>,
    /// `[O, C, kh, kw]`.
    pub weight: &'a Tensor<M>,
    /// `[O]`.
    pub bias: Option<&'a Tensor<M>>,
    /// Whether a backward may follow.
    pub record: bool,
}

/// The input (shared, not copied) and a copy of the weight.
pub struct Conv2dSaved<M> {
    pub spec: Conv2dSpec,
    pub frames: Frames,
    pub x: Tensor<M>,
    pub weight: Tensor<M>,
    pub has_bias: bool,
}

impl<M> Conv2dSaved<M> {
    /// Shape of the output, which is that of its gradient.
    pub fn output_shape(&self) -> Vec<usize> {
        self.frames.output_shape(&self.x.shape, self.spec.out_channels)
    }
}
