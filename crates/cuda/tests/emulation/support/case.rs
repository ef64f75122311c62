//! The cases: variants, shapes, devices and random numbers.

use spikenorm_core::norm::{CudaDevice, Layout, NormSpec, Rows};
use spikenorm_core::{DType, Grid};

/// The family's presets. The ranks (1d, 2d, 3d) differ in S alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    BatchNorm,
    ThresholdDependent,
    TemporalEffective,
    ThroughTime,
    WithoutAffine,
    /// No class has this, the specification does: weights per step under shared statistics.
    WeightsPerStep,
}

impl Variant {
    pub const ALL: [Variant; 6] = [
        Self::BatchNorm,
        Self::ThresholdDependent,
        Self::TemporalEffective,
        Self::ThroughTime,
        Self::WithoutAffine,
        Self::WeightsPerStep,
    ];

    pub fn spec(self, grid: Grid) -> NormSpec {
        let (statistics, weight, bias) = match self {
            Self::ThroughTime => (Rows::PerStep, Rows::PerStep, Rows::Absent),
            Self::WithoutAffine => (Rows::Shared, Rows::Absent, Rows::Absent),
            Self::WeightsPerStep => (Rows::Shared, Rows::PerStep, Rows::PerStep),
            _ => (Rows::Shared, Rows::Shared, Rows::Shared),
        };
        NormSpec {
            spatial: 2,
            channels: grid.c,
            layout: Layout::Contiguous,
            steps: None,
            statistics,
            weight,
            bias,
            time_scale: self == Self::TemporalEffective,
            eps: 1e-5,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Case {
    pub variant: Variant,
    pub grid: Grid,
    pub layout: Layout,
    pub dtype: DType,
    /// Bytes by which every tensor misses an address that is a multiple of 16.
    pub offset: usize,
    pub data: Data,
}

impl Case {
    /// Largest power of two that divides the addresses.
    pub fn alignment(&self) -> usize {
        if self.offset == 0 { 16 } else { 1 << self.offset.trailing_zeros() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Data {
    /// Normal with a mean and a deviation that differ from channel to channel.
    Plain,
    /// Zeros and ones.
    Spikes,
    /// The same, far from zero: the mean's digits leave none for the deviation.
    Far { mean: f64, deviation: f64 },
    /// Far from zero after the first step only: each channel's very first value tells nothing of the rest.
    Drifting { mean: f64, deviation: f64 },
    /// Plain, and a gradient of one everywhere: what a weight's gradient adds up cancels.
    Level,
    /// Plain with one value replaced, in one channel.
    Broken { channel: usize, value: f64 },
}

pub fn grid(t: usize, n: usize, c: usize, s: usize) -> Grid {
    Grid { t, n, c, s }
}

/// A device as small as the cases: small blocks make teams, chunks and launches out of small tensors.
pub fn small_device(threads: usize, shared: usize) -> CudaDevice {
    CudaDevice {
        multiprocessors: 3,
        shared_per_block: shared,
        shared_per_multiprocessor: shared + 2048,
        shared_reserved: 1024,
        threads,
        max_cluster: 8,
        cooperative: true,
    }
}

/// A fixed stream of random numbers.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15))
    }

    pub fn word(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.word() % end as u64) as usize
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Near enough to normal: twelve uniform numbers.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    pub fn normals(&mut self, count: usize, mean: f64, deviation: f64) -> Vec<f64> {
        (0..count).map(|_| mean + deviation * self.normal()).collect()
    }
}
