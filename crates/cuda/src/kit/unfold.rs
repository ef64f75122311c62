//! The kernels of kernels/unfold.cuh: their parameter struct and their launches.

use bytemuck::NoUninit;
use std::mem::{offset_of, size_of};

use spikenorm_core::kit::{Frames, Window};
use spikenorm_core::{DType, Result, bail};

use super::{MOST_PLACES, Step};
use crate::launches::Launch;
use crate::params::{Address, dtype_name};

const THREADS: usize = 256;
/// SPIKENORM_UNFOLD_PLACES.
const PLACES: usize = 1024;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, NoUninit)]
pub struct UnfoldParams {
    pub input: Address,
    pub out: Address,
    pub bias: Address,
    pub sample_stride: u64,
    pub count: u64,
    pub group_count: u64,
    pub samples: u32,
    pub channels: u32,
    pub columns: u32,
    pub strips: u32,
    pub pixels: u32,
    pub positions: u32,
    pub input_height: u32,
    pub input_width: u32,
    pub output_height: u32,
    pub output_width: u32,
    pub kernel_height: u32,
    pub kernel_width: u32,
    pub stride_height: u32,
    pub stride_width: u32,
    pub padding_height: u32,
    pub padding_width: u32,
    pub groups: u32,
    pub lanes: u32,
}

// The same numbers as in unfold.h.
const _: () = {
    assert!(offset_of!(UnfoldParams, sample_stride) == 24);
    assert!(offset_of!(UnfoldParams, samples) == 48);
    assert!(offset_of!(UnfoldParams, pixels) == 64);
    assert!(offset_of!(UnfoldParams, kernel_height) == 88);
    assert!(offset_of!(UnfoldParams, groups) == 112);
    assert!(size_of::<UnfoldParams>() == 120);
};

/// Some samples and channels of a tensor `[samples, C, plane]`, from the address of their first value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planes {
    pub address: Address,
    /// Elements from sample to sample.
    pub sample_stride: usize,
    pub samples: usize,
    pub channels: usize,
    /// Elements of a plane.
    pub plane: usize,
}

impl Planes {
    fn params(self) -> UnfoldParams {
        UnfoldParams {
            sample_stride: self.sample_stride as u64,
            samples: self.samples as u32,
            channels: self.channels as u32,
            ..UnfoldParams::default()
        }
    }
}

/// Blocks that walk `rows` rows of `length` places.
pub(super) fn row_blocks(rows: usize, length: usize) -> usize {
    rows.saturating_mul(length.div_ceil(PLACES))
}

fn launch(kernel: &str, dtype: DType, params: UnfoldParams, blocks: usize, shared: usize) -> Step {
    Step::Launch(Launch {
        kernel: format!("{kernel}_{}", dtype_name(dtype)),
        params,
        blocks,
        threads: THREADS,
        cluster: 1,
        cooperative: false,
        shared,
    })
}

/// The same over rows of `length` places, one row per channel.
fn over_rows(kernel: &str, dtype: DType, params: UnfoldParams, length: usize) -> Step {
    let params = UnfoldParams { strips: length.div_ceil(PLACES) as u32, ..params };
    launch(kernel, dtype, params, row_blocks(params.channels as usize, length), 0)
}

fn windows(planes: Planes, window: &Window, frames: Frames) -> UnfoldParams {
    UnfoldParams {
        columns: (planes.samples * frames.output_plane()) as u32,
        pixels: frames.input_plane() as u32,
        positions: frames.output_plane() as u32,
        input_height: frames.input[0] as u32,
        input_width: frames.input[1] as u32,
        output_height: frames.output[0] as u32,
        output_width: frames.output[1] as u32,
        kernel_height: window.kernel[0] as u32,
        kernel_width: window.kernel[1] as u32,
        stride_height: window.stride[0] as u32,
        stride_width: window.stride[1] as u32,
        padding_height: window.padding[0] as u32,
        padding_width: window.padding[1] as u32,
        ..planes.params()
    }
}

/// Images → columns `[C·kh·kw, samples·positions]`.
pub(super) fn unfold(
    dtype: DType,
    images: Planes,
    columns: Address,
    window: &Window,
    frames: Frames,
) -> Step {
    let params = UnfoldParams { input: images.address, out: columns, ..windows(images, window, frames) };
    over_rows("unfold", dtype, params, images.samples * frames.output_plane())
}

/// Columns → images: the transpose of [`unfold`].
pub(super) fn fold(dtype: DType, columns: Address, images: Planes, window: &Window, frames: Frames) -> Step {
    let params = UnfoldParams { input: columns, out: images.address, ..windows(images, window, frames) };
    over_rows("fold", dtype, params, images.samples * frames.input_plane())
}

fn matrix(planes: Planes) -> UnfoldParams {
    UnfoldParams {
        columns: (planes.samples * planes.plane) as u32,
        positions: planes.plane as u32,
        ..planes.params()
    }
}

/// Planes → matrix `[C, samples·plane]` in the dtype of the parameters.
pub(super) fn gather(dtype: DType, planes: Planes, out: Address) -> Step {
    let params = UnfoldParams { input: planes.address, out, ..matrix(planes) };
    over_rows("gather_matrix", dtype, params, planes.samples * planes.plane)
}

/// Matrix `[C, samples·plane]` → planes, with a bias per channel added where there is one.
pub(super) fn scatter(dtype: DType, input: Address, bias: Address, planes: Planes) -> Step {
    let params = UnfoldParams { input, bias, out: planes.address, ..matrix(planes) };
    over_rows("scatter_matrix", dtype, params, planes.samples * planes.plane)
}

/// `count` values in the dtype of the parameters → `dtype`, with a bias per column added where there is one.
pub(super) fn add_row_bias(
    dtype: DType,
    input: Address,
    bias: Address,
    out: Address,
    count: usize,
    columns: usize,
) -> Step {
    let params = UnfoldParams {
        input,
        out,
        bias,
        count: count as u64,
        columns: columns as u32,
        ..UnfoldParams::default()
    };
    launch("add_row_bias", dtype, params, count.div_ceil(PLACES), 0)
}

/// The sum over all values of a channel of a tensor `[samples, C, plane]`: groups of values first, then the
/// groups in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelSums {
    pub samples: usize,
    pub channels: usize,
    pub plane: usize,
    /// Channels side by side in a block.
    pub lanes: usize,
    pub groups: usize,
    /// Values of a channel in a group; the last may have fewer.
    pub group_count: usize,
}

impl ChannelSums {
    /// Enough blocks to fill any device.
    const BLOCKS: usize = 1024;
    /// Values a thread adds up before another group is worth its block.
    const LEAST: usize = 8;

    pub fn new(samples: usize, channels: usize, plane: usize) -> Result<Self> {
        // Neighbouring lanes are a plane apart, neighbouring threads of a lane one value: a warp should
        // find its values in as few lines as planes of this size allow.
        let lanes = (32 / plane).clamp(1, 32).next_power_of_two();
        let count = samples * plane;
        let blocks = channels.div_ceil(lanes);
        let most = count.div_ceil(Self::LEAST * THREADS / lanes).max(1);
        let groups = (Self::BLOCKS / blocks).clamp(1, most);
        let group_count = count.div_ceil(groups).max(1);
        let groups = count.div_ceil(group_count).max(1);
        if plane > MOST_PLACES || channels.max(groups * blocks) > MOST_PLACES {
            bail!(Shape, "input: {channels} channels of {plane} values cannot be laid over a CUDA grid");
        }
        Ok(Self { samples, channels, plane, lanes, groups, group_count })
    }

    /// Bytes of scratch memory: float64.
    pub fn scratch_bytes(&self) -> usize {
        8 * self.groups * self.channels
    }

    /// `out`: one value per channel, in the dtype of the parameters.
    pub(super) fn steps(&self, dtype: DType, input: Address, scratch: Address, out: Address) -> [Step; 2] {
        let params = UnfoldParams {
            input,
            out: scratch,
            sample_stride: (self.channels * self.plane) as u64,
            count: (self.samples * self.plane) as u64,
            group_count: self.group_count as u64,
            samples: self.samples as u32,
            channels: self.channels as u32,
            positions: self.plane as u32,
            groups: self.groups as u32,
            lanes: self.lanes as u32,
            ..UnfoldParams::default()
        };
        let blocks = self.channels.div_ceil(self.lanes) * self.groups;
        let total = UnfoldParams { input: scratch, out, ..params };
        [
            launch("sum_channels", dtype, params, blocks, 8 * THREADS),
            launch("total_channels", dtype.parameter(), total, self.channels.div_ceil(THREADS), 0),
        ]
    }
}
