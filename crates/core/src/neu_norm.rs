//! NeuNorm (Wu et al. 2019): a running mean over channels and time, subtracted with a learned weight.
//!
//! With k1 = (1 − k)/C², state s_0 = 0 `[N, H·W]` and w `[C, H·W]` (or `[1, H·W]` shared over channels):
//!
//! ```text
//! forward   s_t = k·s_{t−1} + k1·Σ_c x_t      y_t = x_t − w·s_t
//! backward  δ_t = −Σ_c w·dy_t + k·δ_{t+1}     dx_t = dy_t + k1·δ_t     dw = −Σ_{t,n} dy_t·s_t
//! ```
//!
//! The gradient carried into the state before the first step is k·δ_first.

use crate::shape::expect_steps;
use crate::{Grid, Layout, Result, StepMode, Tensor, bail, show};

#[derive(Clone, Debug, PartialEq)]
pub struct NeuNormSpec {
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    pub layout: Layout,
    pub k: f64,
    pub shared: bool,
}

impl NeuNormSpec {
    /// k1 = (1 − k)/C².
    pub fn input_gain(&self) -> f64 {
        (1.0 - self.k) / (self.channels * self.channels) as f64
    }

    pub fn weight_shape(&self) -> [usize; 3] {
        [if self.shared { 1 } else { self.channels }, self.height, self.width]
    }

    /// Reads `shape` as a grid, whose memory is in this layout; `state` is the shape of a state carried over, if any.
    pub fn grid(&self, shape: &[usize], mode: StepMode, state: Option<&[usize]>) -> Result<Grid> {
        let leading = if mode == StepMode::Multi { 2 } else { 1 };
        let (c, h, w) = (self.channels, self.height, self.width);
        let expected = match self.layout {
            Layout::Contiguous => [c, h, w],
            Layout::ChannelsLast => [h, w, c],
        };
        if shape.len() != leading + 3 || shape[leading..] != expected {
            let prefix = if mode == StepMode::Multi { "T, N" } else { "N" };
            bail!(
                Shape,
                "input: expected [{prefix}, {}, {}, {}] in step mode '{}', got shape {}",
                expected[0],
                expected[1],
                expected[2],
                mode.name(),
                show(shape)
            );
        }
        let grid = Grid::of(shape, mode, self.layout);
        expect_steps(grid.t, shape)?;
        if let Some(state) = state
            && state[0] != grid.n
        {
            bail!(
                Shape,
                "input: expected a batch of {} as in the state carried over, got {}; call reset() before a new batch",
                state[0],
                grid.n
            );
        }
        Ok(grid)
    }
}

pub struct NeuNormForward<'a, M> {
    pub spec: &'a NeuNormSpec,
    pub grid: Grid,
    pub x: &'a Tensor<M>,
    pub weight: &'a Tensor<M>,
    /// `[N, 1, H, W]`; `None` is zero.
    pub state: Option<&'a Tensor<M>>,
    pub record: bool,
}

pub struct NeuNormOutput<M> {
    pub y: Tensor<M>,
    /// State after the last step, `[N, 1, H, W]`.
    pub state: Tensor<M>,
    pub saved: Option<NeuNormSaved<M>>,
}

/// The states (1/C of a tensor) and a copy of the weight; the input itself is not needed.
pub struct NeuNormSaved<M> {
    pub spec: NeuNormSpec,
    pub grid: Grid,
    pub input_shape: Vec<usize>,
    pub input_dtype: crate::DType,
    pub weight: Tensor<M>,
    /// `[T, N, H·W]`.
    pub states: Tensor<M>,
}

pub struct NeuNormGrads<M> {
    pub dx: Tensor<M>,
    pub weight: Tensor<M>,
    /// Gradient of the state before the first step, `[N, 1, H, W]`.
    pub state: Tensor<M>,
}
