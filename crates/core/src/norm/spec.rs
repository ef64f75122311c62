//! [`NormSpec`]: what tells one batch norm from another, and what input each accepts.

use crate::shape::expect_steps;
use crate::{Grid, Layout, Result, StepMode, bail, show};

/// How many rows a small tensor `[rows, C]` has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    Absent,
    /// One row, used by every time step.
    Shared,
    /// One row per time step.
    PerStep,
}

impl Rows {
    pub fn is_present(self) -> bool {
        self != Rows::Absent
    }

    /// Rows needed for `t` steps.
    pub fn count(self, t: usize) -> usize {
        match self {
            Rows::Absent => 0,
            Rows::Shared => 1,
            Rows::PerStep => t,
        }
    }

    /// Row that step `t` uses.
    pub fn of(self, t: usize) -> usize {
        match self {
            Rows::PerStep => t,
            _ => 0,
        }
    }
}

/// One layer's specification. A class of the public API is a preset of it.
#[derive(Clone, Debug, PartialEq)]
pub struct NormSpec {
    /// Axes after the channel: 1 (may be left out), 2 or 3.
    pub spatial: usize,
    pub channels: usize,
    pub layout: Layout,
    /// Number of time steps the layer was made for; `None` where it takes any.
    pub steps: Option<usize>,
    /// `Shared` or `PerStep`.
    pub statistics: Rows,
    pub weight: Rows,
    pub bias: Rows,
    pub time_scale: bool,
    pub eps: f64,
}

impl NormSpec {
    /// Refuses an eps below 0, or so small that 1/√eps is not finite in float32.
    pub fn check(&self) -> Result<()> {
        let is_usable = self.eps == 0.0 || self.eps >= f64::from(f32::MIN_POSITIVE);
        if !(is_usable && self.eps.is_finite()) {
            bail!(Argument, "eps: expected 0 or a finite number of at least 2^-126, got {}", self.eps);
        }
        Ok(())
    }

    /// Reads `shape` as the contiguous grid its memory is, or says what is wrong with it. Statistics are those of a
    /// cell, so that with channels last the places in space are so many samples: N·S of them, of one value each.
    /// `first_step` is the step index of a layer whose rows are per step.
    pub fn grid(&self, shape: &[usize], mode: StepMode, first_step: usize) -> Result<Grid> {
        let leading = if mode == StepMode::Multi { 3 } else { 2 };
        let full = leading + self.spatial;
        let ranks_ok = shape.len() == full || (self.spatial == 1 && shape.len() == leading);
        if !ranks_ok {
            bail!(
                Shape,
                "input: expected {} in step mode '{}', got shape {}",
                self.expected_axes(mode),
                mode.name(),
                show(shape)
            );
        }
        let grid = Grid::of(shape, mode, self.layout);
        if grid.c != self.channels {
            bail!(
                Shape,
                "input: expected numFeatures = {} channels at axis {}, got {} in shape {}",
                self.channels,
                self.layout.channel_axis(shape.len(), mode),
                grid.c,
                show(shape)
            );
        }
        self.check_steps(grid.t, first_step, shape)?;
        Ok(self.layout.fold(grid))
    }

    /// Refuses batch statistics of a row with fewer than two values, as PyTorch does.
    pub fn check_batch_statistics(&self, grid: Grid) -> Result<()> {
        let values = self.values_per_row(grid);
        if values < 2 {
            let extents = match self.layout {
                Layout::Contiguous => format!("N = {}, {} in space", grid.n, grid.s),
                Layout::ChannelsLast => format!("{} over N and space", grid.n),
            };
            bail!(
                BatchStatistics,
                "input: batch statistics need more than 1 value per channel, got {values} (T = {}, {extents})",
                grid.t
            );
        }
        Ok(())
    }

    /// R: values in one statistics row.
    pub fn values_per_row(&self, grid: Grid) -> usize {
        match self.statistics {
            Rows::PerStep => grid.cell(),
            _ => grid.t * grid.cell(),
        }
    }

    fn check_steps(&self, t: usize, first_step: usize, shape: &[usize]) -> Result<()> {
        let Some(steps) = self.steps else { return Ok(()) };
        if self.time_scale && t != steps {
            bail!(TimeStep, "input: expected T = {steps} time steps (the length of scale), got {t}");
        }
        if !self.time_scale && first_step + t > steps {
            bail!(
                TimeStep,
                "input: steps {first_step}..{} reach past T = {steps}; call reset() before a new sequence",
                first_step + t
            );
        }
        expect_steps(t, shape)
    }

    /// `[T, N, C, H, W]` and the like.
    fn expected_axes(&self, mode: StepMode) -> String {
        let space = ["L", "H, W", "D, H, W"][self.spatial.clamp(1, 3) - 1];
        let leading = if mode == StepMode::Multi { "T, N" } else { "N" };
        let full = match self.layout {
            Layout::Contiguous => format!("[{leading}, C, {space}]"),
            Layout::ChannelsLast => format!("[{leading}, {space}, C]"),
        };
        if self.spatial == 1 { format!("[{leading}, C] or {full}") } else { full }
    }
}
