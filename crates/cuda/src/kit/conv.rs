//! Convolution as matrix products over unfolded windows. With O output channels, K products per output
//! value and M positions of some samples:
//!
//! ```text
//! forward   y[O, M] = w[O, K] · columns[K, M]
//! backward  dw[O, K] += dy[O, M] · columns[K, M]ᵀ      dcolumns[K, M] = w[O, K]ᵀ · dy[O, M]
//! ```

use spikenorm_core::kit::{Conv2dSpec, Frames};
use spikenorm_core::{DType, Result, bail, show};

use super::unfold::{self, ChannelSums, Planes, row_blocks};
use super::{MOST_PLACES, Matrix, Product, Step};
use crate::params::Address;

/// Where the tensors of a pass are, 0 where there is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conv2dAddresses {
    pub x: Address,
    pub weight: Address,
    pub bias: Address,
    /// The output, or its gradient.
    pub y: Address,
    pub dx: Address,
    pub weight_grad: Address,
    pub bias_grad: Address,
    /// [`Conv2dPlan::scratch_bytes`], aligned to 8 bytes.
    pub scratch: Address,
}

/// How a pass is cut: into chunks of samples and, where the columns of one sample are too many, groups of
/// input channels. A pixel's windows are never cut, so folding finds all of them.
#[derive(Clone, Debug)]
pub struct Conv2dPlan {
    spec: Conv2dSpec,
    frames: Frames,
    dtype: DType,
    /// Samples of a chunk.
    pub samples: usize,
    /// Input channels unfolded at a time.
    pub channels: usize,
    /// A chunk is one sample in the dtype of the parameters, so that its planes are a matrix where they are.
    pub direct: bool,
    sums: ChannelSums,
}

/// Samples `sample .. sample + samples`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub sample: usize,
    pub samples: usize,
}

/// Input channels `channel .. channel + channels`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    pub channel: usize,
    pub channels: usize,
}

impl Conv2dPlan {
    /// Matrices take at most `budget` bytes, or what one channel of one sample and its output need.
    pub fn new(spec: &Conv2dSpec, frames: Frames, dtype: DType, budget: usize) -> Result<Self> {
        let (size, outputs) = (dtype.parameter().size(), spec.out_channels);
        let (pixels, positions) = (frames.input_plane(), frames.output_plane());
        let padded = (0..2).map(|axis| frames.input[axis] + 2 * spec.window.padding[axis]).max();
        let places = [pixels, positions, outputs, spec.fan_in(), padded.unwrap_or(0)];
        if !dtype.is_float() {
            bail!(Dtype, "input: expected a float dtype, got {}", dtype.name());
        }
        let fits = places.iter().all(|&places| places <= MOST_PLACES);
        let row = |channels: usize| channels.saturating_mul(positions).saturating_mul(size);
        let least = frames.samples.max(1);
        let samples = (budget / row(spec.fan_in() + outputs).max(1))
            .min(MOST_PLACES / pixels.max(positions).max(1))
            .clamp(1, least);
        let direct = samples == 1 && dtype == dtype.parameter();
        let left = budget.saturating_sub(if direct { 0 } else { row(outputs) });
        let area = spec.fan_in() / spec.in_channels;
        let channels = if samples > 1 { spec.in_channels } else { left / row(area).max(1) };
        let channels = channels.clamp(1, spec.in_channels);
        let blocks = row_blocks(channels.max(outputs), samples * pixels.max(positions));
        if !fits || blocks > MOST_PLACES {
            bail!(
                Shape,
                "input: images of {} by {} with a window of {} cannot be laid over a CUDA grid",
                frames.input[0],
                frames.input[1],
                show(&spec.window.kernel)
            );
        }
        let sums = ChannelSums::new(frames.samples, outputs, positions)?;
        Ok(Self { spec: spec.clone(), frames, dtype, samples, channels, direct, sums })
    }

    /// Chunks in order.
    pub fn chunks(&self) -> impl Iterator<Item = Chunk> + use<> {
        let (all, samples) = (self.frames.samples, self.samples);
        (0..all).step_by(samples).map(move |sample| Chunk { sample, samples: samples.min(all - sample) })
    }

    /// Groups of input channels in order.
    pub fn groups(&self) -> impl Iterator<Item = Group> + use<> {
        let (all, channels) = (self.spec.in_channels, self.channels);
        (0..all)
            .step_by(channels)
            .map(move |channel| Group { channel, channels: channels.min(all - channel) })
    }

    /// A window of one pixel at every pixel: columns are the image's own rows.
    fn pointwise(&self) -> bool {
        let window = self.spec.window;
        window.kernel == [1, 1] && window.stride == [1, 1] && window.padding == [0, 0]
    }

    fn area(&self) -> usize {
        self.spec.fan_in() / self.spec.in_channels
    }

    /// Bytes of the columns of a group, and of a chunk's outputs as a matrix.
    fn matrices(&self) -> [usize; 2] {
        let row = self.samples * self.frames.output_plane() * self.dtype.parameter().size();
        let columns = if self.direct && self.pointwise() { 0 } else { self.channels * self.area() * row };
        [columns, if self.direct { 0 } else { self.spec.out_channels * row }]
    }

    pub fn scratch_bytes(&self) -> usize {
        let [columns, outputs] = self.matrices();
        (columns.next_multiple_of(8) + outputs).max(self.sums.scratch_bytes())
    }

    fn images(&self, tensor: Address, chunk: Chunk, group: Group) -> Planes {
        let (plane, sample_stride) =
            (self.frames.input_plane(), self.frames.channels * self.frames.input_plane());
        let first = chunk.sample * sample_stride + group.channel * plane;
        Planes {
            address: tensor + (first * self.dtype.size()) as u64,
            sample_stride,
            samples: chunk.samples,
            channels: group.channels,
            plane,
        }
    }

    fn outputs(&self, tensor: Address, chunk: Chunk) -> Planes {
        let plane = self.frames.output_plane();
        let sample_stride = self.spec.out_channels * plane;
        Planes {
            address: tensor + (chunk.sample * sample_stride * self.dtype.size()) as u64,
            sample_stride,
            samples: chunk.samples,
            channels: self.spec.out_channels,
            plane,
        }
    }

    /// The columns of a group: where they are, once the steps that write them have been added.
    fn unfolded(&self, steps: &mut Vec<Step>, images: Planes, columns: Address) -> Address {
        match (self.pointwise(), self.direct) {
            (true, true) => return images.address,
            (true, false) => steps.push(unfold::gather(self.dtype, images, columns)),
            (false, _) => {
                steps.push(unfold::unfold(self.dtype, images, columns, &self.spec.window, self.frames));
            }
        }
        columns
    }

    /// The weights of a group, `[O, channels·area]`, or where their gradient goes.
    fn weights(&self, tensor: Address, group: Group) -> Matrix {
        let first = group.channel * self.area() * self.dtype.parameter().size();
        Matrix::new(tensor + first as u64, self.spec.fan_in())
    }

    pub fn forward(&self, at: &Conv2dAddresses) -> Vec<Step> {
        let mut steps = Vec::new();
        let buffer = at.scratch + self.matrices()[0].next_multiple_of(8) as u64;
        for chunk in self.chunks() {
            let width = chunk.samples * self.frames.output_plane();
            let y = self.outputs(at.y, chunk);
            let product = if self.direct { y.address } else { buffer };
            for group in self.groups() {
                let columns = self.unfolded(&mut steps, self.images(at.x, chunk, group), at.scratch);
                steps.push(Step::Product(Product {
                    dtype: self.dtype.parameter(),
                    rows: self.spec.out_channels,
                    columns: width,
                    inner: group.channels * self.area(),
                    left: self.weights(at.weight, group),
                    right: Matrix::new(columns, width),
                    out: Matrix::new(product, width),
                    accumulate: group.channel > 0,
                }));
            }
            if !self.direct || at.bias != 0 {
                steps.push(unfold::scatter(self.dtype, product, at.bias, y));
            }
        }
        steps
    }

    /// Without samples there are no steps, and the gradients of weight and bias are zeros. dx and the
    /// bias's gradient are left out where they have no address.
    pub fn backward(&self, at: &Conv2dAddresses) -> Vec<Step> {
        let mut steps = Vec::new();
        let buffer = at.scratch + self.matrices()[0].next_multiple_of(8) as u64;
        for chunk in self.chunks() {
            let width = chunk.samples * self.frames.output_plane();
            let dy = self.outputs(at.y, chunk);
            if !self.direct {
                steps.push(unfold::gather(self.dtype, dy, buffer));
            }
            let dy = Matrix::new(if self.direct { dy.address } else { buffer }, width);
            for group in self.groups() {
                let columns = self.unfolded(&mut steps, self.images(at.x, chunk, group), at.scratch);
                let inner = group.channels * self.area();
                steps.push(Step::Product(Product {
                    dtype: self.dtype.parameter(),
                    rows: self.spec.out_channels,
                    columns: inner,
                    inner: width,
                    left: dy,
                    right: Matrix::new(columns, width).transposed(),
                    out: self.weights(at.weight_grad, group),
                    accumulate: chunk.sample > 0,
                }));
                if at.dx != 0 {
                    self.fold(&mut steps, at, dy, chunk, group);
                }
            }
        }
        if at.bias_grad != 0 && self.frames.samples > 0 {
            steps.extend(self.sums.steps(self.dtype, at.y, at.scratch, at.bias_grad));
        }
        steps
    }

    /// dx of a group, from the gradient of its columns, which take the place of the columns.
    fn fold(&self, steps: &mut Vec<Step>, at: &Conv2dAddresses, dy: Matrix, chunk: Chunk, group: Group) {
        let dx = self.images(at.dx, chunk, group);
        let in_place = self.pointwise() && self.direct;
        let columns = if in_place { dx.address } else { at.scratch };
        steps.push(Step::Product(Product {
            dtype: self.dtype.parameter(),
            rows: group.channels * self.area(),
            columns: dy.stride,
            inner: self.spec.out_channels,
            left: self.weights(at.weight, group).transposed(),
            right: dy,
            out: Matrix::new(columns, dy.stride),
            accumulate: false,
        }));
        match (self.pointwise(), in_place) {
            (_, true) => {}
            (true, false) => steps.push(unfold::scatter(self.dtype, columns, 0, dx)),
            (false, _) => {
                steps.push(unfold::fold(self.dtype, columns, dx, &self.spec.window, self.frames));
            }
        }
    }
}
