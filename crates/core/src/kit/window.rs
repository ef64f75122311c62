//! A window that slides over images: kernel, stride and padding, each `[vertical, horizontal]`.

use crate::{Result, StepMode, bail, element_count, show};

/// Extents from which on an index could overflow; far above any image.
const LARGEST: usize = 1 << 31;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    /// Added on both sides.
    pub padding: [usize; 2],
}

/// The images of one call: `samples` = T·N (or N) images of `channels` planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frames {
    pub samples: usize,
    pub channels: usize,
    /// `[H, W]` of the input.
    pub input: [usize; 2],
    /// `[H, W]` of the output.
    pub output: [usize; 2],
}

impl Frames {
    pub fn input_plane(&self) -> usize {
        self.input[0] * self.input[1]
    }

    pub fn output_plane(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Shape of the output beside an input of shape `input`, with `channels` planes.
    pub fn output_shape(&self, input: &[usize], channels: usize) -> Vec<usize> {
        let mut shape = input[..input.len() - 3].to_vec();
        shape.extend([channels, self.output[0], self.output[1]]);
        shape
    }
}

impl Window {
    /// Refuses windows that cannot slide.
    pub fn check(&self) -> Result<()> {
        for (name, [vertical, horizontal], least) in
            [("kernelSize", self.kernel, 1), ("stride", self.stride, 1), ("padding", self.padding, 0)]
        {
            for extent in [vertical, horizontal] {
                if extent < least || extent >= LARGEST {
                    bail!(
                        Argument,
                        "{name}: expected integers of at least {least}, got [{vertical}, {horizontal}]"
                    );
                }
            }
        }
        Ok(())
    }

    /// Positions of the window along each axis of an image `[H, W]`: ⌊(size + 2·padding − kernel)/stride⌋ + 1.
    pub fn output(&self, input: [usize; 2]) -> Result<[usize; 2]> {
        let mut output = [0; 2];
        for axis in 0..2 {
            let padded = input[axis] + 2 * self.padding[axis];
            if input[axis] == 0 || padded < self.kernel[axis] {
                bail!(
                    Shape,
                    "input: an image of {} by {} (padding [{}, {}]) is smaller than the kernel, {} by {}",
                    input[0],
                    input[1],
                    self.padding[0],
                    self.padding[1],
                    self.kernel[0],
                    self.kernel[1]
                );
            }
            output[axis] = (padded - self.kernel[axis]) / self.stride[axis] + 1;
        }
        Ok(output)
    }

    /// Reads `shape`, `[N, C, H, W]` or `[T, N, C, H, W]`, as frames.
    pub fn frames(&self, shape: &[usize], mode: StepMode) -> Result<Frames> {
        let leading = if mode == StepMode::Multi { 2 } else { 1 };
        if shape.len() != leading + 3 {
            let axes = if mode == StepMode::Multi { "[T, N, C, H, W]" } else { "[N, C, H, W]" };
            bail!(Shape, "input: expected {axes} in step mode '{}', got shape {}", mode.name(), show(shape));
        }
        let input = [shape[leading + 1], shape[leading + 2]];
        // Of the padded image; no axis of the output is longer.
        element_count(&[shape[leading], input[0] + 2 * self.padding[0], input[1] + 2 * self.padding[1]])?;
        Ok(Frames {
            samples: shape[..leading].iter().product(),
            channels: shape[leading],
            input,
            output: self.output(input)?,
        })
    }
}
