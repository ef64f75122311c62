//! A convolution of stride 1 seen from its output.

use spikenorm_core::kit::{Conv2dSpec, Frames, Window};
use spikenorm_core::{Result, workspace};

use crate::element::Real;

/// The convolution that gives the input's gradient from the output's: of stride 1, the same window turned by half a circle,
/// with inputs and outputs exchanged. Its columns serve both gradients, its matrix product has more terms than the one whose
/// columns are folded up (the window's times the outputs; there, the outputs), and nothing is folded.
pub struct Turned {
    pub spec: Conv2dSpec,
    pub frames: Frames,
}

impl Turned {
    /// `None` for strides, for paddings beyond the window, and where the columns would be by far the more.
    pub fn of(spec: &Conv2dSpec, frames: Frames) -> Option<Self> {
        let Window { kernel, stride, padding } = spec.window;
        let fits = stride == [1, 1] && padding[0] < kernel[0] && padding[1] < kernel[1];
        if !fits || spec.out_channels > 2 * spec.in_channels {
            return None;
        }
        let padding = [kernel[0] - 1 - padding[0], kernel[1] - 1 - padding[1]];
        let spec = Conv2dSpec {
            in_channels: spec.out_channels,
            out_channels: spec.in_channels,
            window: Window { kernel, stride, padding },
        };
        let frames =
            Frames { channels: spec.in_channels, input: frames.output, output: frames.input, ..frames };
        Some(Self { spec, frames })
    }
}

/// The weight `[O, C, kh, kw]` of a convolution as that of its turned one, `[C, O, kh, kw]`.
pub fn turn<A: Real>(weight: &[A], spec: &Conv2dSpec) -> Result<Vec<A>> {
    let kernel = spec.window.kernel[0] * spec.window.kernel[1];
    let mut all = workspace::zeros(weight.len())?;
    for (at, filter) in weight.chunks_exact(kernel).enumerate() {
        let (o, c) = (at / spec.in_channels, at % spec.in_channels);
        let target = &mut all[(c * spec.out_channels + o) * kernel..][..kernel];
        for (to, from) in target.iter_mut().zip(filter.iter().rev()) {
            *to = *from;
        }
    }
    Ok(all)
}
