//! The parameter structs of kernels/params.h, and how plans fill them.

use std::mem::{offset_of, size_of};

use bytemuck::NoUninit;
use spikenorm_core::NeuNormSpec;
use spikenorm_core::norm::{CudaNeuNormPlan, CudaPlan, Lanes, Layout, NormSpec, Rows, TeamSync};
use spikenorm_core::{DType, Grid, Result, bail};

/// An address in device memory, 0 where there is no tensor.
pub type Address = u64;

/// Which parts of a pass a launch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Both = 0,
    Sums = 1,
    Apply = 2,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, NoUninit)]
pub struct NormParams {
    pub x: Address,
    pub dy: Address,
    pub out: Address,
    pub weight: Address,
    pub bias: Address,
    pub scale: Address,
    pub statistics: Address,
    pub running_mean: Address,
    pub running_var: Address,
    pub counters: Address,
    pub weight_out: Address,
    pub bias_out: Address,
    pub scale_out: Address,
    pub slots: Address,
    pub row_means: Address,
    pub scale_terms: Address,
    pub barriers: Address,
    pub eps: f64,
    pub momentum: f64,
    pub per_cell: f64,
    pub per_step: f64,
    pub per_freedom: f64,
    pub step_stride: u64,
    pub row_stride: u64,
    pub channels: u32,
    pub space: u32,
    pub segment: u32,
    pub segments: u32,
    pub rows: u32,
    pub all_steps: u32,
    pub first_step: u32,
    pub steps: u32,
    pub statistics_stride: u32,
    pub weight_stride: u32,
    pub bias_stride: u32,
    pub batch_statistics: u32,
    pub phase: u32,
    pub sync: u32,
    pub team: u32,
    pub teams: u32,
    pub tiles: u32,
    pub tile_channels: u32,
    pub chunk_rows: u32,
    pub pitch: u32,
    pub rows_each: u32,
    pub rows_extra: u32,
    pub copy_bytes: u32,
    pub copy_shift: u32,
    pub parts: u32,
    pub lane_columns: u32,
    pub partial_offset: u32,
    pub coefficient_offset: u32,
    pub row_offset: u32,
    pub tile_offset: u32,
    pub tensor_bytes: u32,
    pub bound: f32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, NoUninit)]
pub struct NeuNormParams {
    pub input: Address,
    pub out: Address,
    pub weight: Address,
    pub state: Address,
    pub state_out: Address,
    pub states: Address,
    pub weight_grad: Address,
    pub partial: Address,
    pub tickets: Address,
    pub k: f64,
    pub input_gain: f64,
    pub step_stride: u64,
    pub sample_stride: u64,
    pub channel_stride: u64,
    pub pixel_stride: u64,
    pub steps: u32,
    pub samples: u32,
    pub channels: u32,
    pub pixels: u32,
    pub weight_rows: u32,
    pub columns: u32,
    pub lanes: u32,
    pub strips: u32,
    pub groups: u32,
    pub group_samples: u32,
    pub lanes_first: u32,
    pub reserved: u32,
}

// The same numbers as in params.h.
const _: () = {
    assert!(offset_of!(NormParams, slots) == 104);
    assert!(offset_of!(NormParams, eps) == 136);
    assert!(offset_of!(NormParams, step_stride) == 176);
    assert!(offset_of!(NormParams, channels) == 192);
    assert!(offset_of!(NormParams, statistics_stride) == 224);
    assert!(offset_of!(NormParams, phase) == 240);
    assert!(offset_of!(NormParams, partial_offset) == 296);
    assert!(offset_of!(NormParams, tensor_bytes) == 312);
    assert!(size_of::<NormParams>() == 320);
    assert!(offset_of!(NeuNormParams, k) == 72);
    assert!(offset_of!(NeuNormParams, step_stride) == 88);
    assert!(offset_of!(NeuNormParams, steps) == 120);
    assert!(offset_of!(NeuNormParams, lanes_first) == 160);
    assert!(size_of::<NeuNormParams>() == 168);
};

impl NormParams {
    /// Shape and plan; addresses, `momentum` and the phase of each launch are the caller's.
    pub fn new(spec: &NormSpec, plan: &CudaPlan, batch_statistics: bool) -> Self {
        let Grid { t, n, c, s } = plan.grid;
        let stride = |rows: Rows| if rows == Rows::PerStep { c as u32 } else { 0 };
        let row_steps = if spec.statistics == Rows::PerStep { 1 } else { t };
        Self {
            eps: spec.eps,
            per_cell: 1.0 / (n * s) as f64,
            per_step: 1.0 / row_steps as f64,
            per_freedom: 1.0 / ((row_steps * n * s) as f64 - 1.0),
            step_stride: (n * c * s) as u64,
            row_stride: (c * s) as u64,
            channels: c as u32,
            space: s as u32,
            segment: plan.segment as u32,
            segments: plan.segments as u32,
            rows: plan.rows as u32,
            all_steps: t as u32,
            first_step: 0,
            steps: t as u32,
            statistics_stride: stride(spec.statistics),
            weight_stride: stride(spec.weight),
            bias_stride: stride(spec.bias),
            batch_statistics: batch_statistics.into(),
            sync: match plan.sync {
                TeamSync::Cluster => 1,
                TeamSync::Cooperative => 2,
                TeamSync::Alone | TeamSync::Launches => 0,
            },
            team: plan.team as u32,
            teams: plan.teams as u32,
            tiles: plan.tiles as u32,
            tile_channels: plan.tile_channels as u32,
            chunk_rows: plan.chunk_rows as u32,
            pitch: plan.pitch as u32,
            rows_each: (plan.rows / plan.team) as u32,
            rows_extra: (plan.rows % plan.team) as u32,
            copy_bytes: plan.copy_bytes as u32,
            copy_shift: plan.copy_lanes.ilog2(),
            parts: plan.parts as u32,
            lane_columns: plan.lane_columns as u32,
            partial_offset: plan.offsets.partial as u32,
            coefficient_offset: plan.offsets.coefficients as u32,
            row_offset: plan.offsets.rows as u32,
            tile_offset: plan.offsets.tile as u32,
            tensor_bytes: plan.offsets.tensor as u32,
            bound: (4 * plan.terms()).next_power_of_two() as f32,
            ..Self::default()
        }
    }

    /// The same for the steps of one launch.
    pub fn launch(&self, phase: Phase, first_step: usize, steps: usize) -> Self {
        Self { phase: phase as u32, first_step: first_step as u32, steps: steps as u32, ..*self }
    }
}

impl NeuNormParams {
    /// Shape and plan; addresses are the caller's.
    pub fn new(spec: &NeuNormSpec, plan: &CudaNeuNormPlan) -> Self {
        let Grid { t, n, c, s } = plan.grid;
        let (channel_stride, pixel_stride) = match plan.layout {
            Layout::Contiguous => (s, 1),
            Layout::ChannelsLast => (1, c),
        };
        Self {
            k: spec.k,
            input_gain: spec.input_gain(),
            step_stride: (n * c * s) as u64,
            sample_stride: (c * s) as u64,
            channel_stride: channel_stride as u64,
            pixel_stride: pixel_stride as u64,
            steps: t as u32,
            samples: n as u32,
            channels: c as u32,
            pixels: s as u32,
            weight_rows: if spec.shared { 1 } else { c as u32 },
            columns: plan.columns as u32,
            lanes: plan.lanes as u32,
            strips: plan.strips as u32,
            groups: plan.groups as u32,
            group_samples: plan.group_samples as u32,
            lanes_first: (plan.layout == Layout::ChannelsLast).into(),
            ..Self::default()
        }
    }
}

/// A dtype in the names of kernels.
pub fn dtype_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "f64",
        DType::F32 => "f32",
        DType::F16 => "f16",
        DType::BF16 => "bf16",
        DType::U8 => "u8",
        DType::I64 => "i64",
    }
}

/// The same, of floating-point dtypes alone.
pub fn float_name(dtype: DType) -> Result<&'static str> {
    if !dtype.is_float() {
        bail!(Dtype, "expected a floating-point tensor, got {}", dtype.name());
    }
    Ok(dtype_name(dtype))
}

/// Name of the team kernel of a plan; `pass` is "forward" or "backward".
pub fn norm_kernel(pass: &str, plan: &CudaPlan) -> String {
    let lanes = match plan.lanes {
        Lanes::Space(vector) => format!("space{vector}"),
        Lanes::Channel(vector) => format!("channel{vector}"),
    };
    format!("norm_{pass}_{}_{lanes}", dtype_name(plan.dtype))
}

/// Name of the kernel between the launches of a plan that takes several.
pub fn combine_kernel(pass: &str, plan: &CudaPlan) -> String {
    format!("norm_combine_{pass}_{}", dtype_name(plan.dtype))
}

pub fn neu_norm_kernel(pass: &str, plan: &CudaNeuNormPlan) -> String {
    format!("neu_norm_{pass}_{}_{}", dtype_name(plan.dtype), plan.vector)
}
