//! [`NormSpec`]: what tells one batch norm from another, and what input each accepts.

use crate::{Grid, Result, StepMode, bail, show};

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
    /// Reads `shape` as a grid, or says what is wrong with it. `first_step` is the step index of a
    /// layer whose rows are per step.
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
        let grid = Grid::of(shape, mode);
        if grid.c != self.channels {
            bail!(
                Shape,
                "input: expected numFeatures = {} channels at axis {}, got {} in shape {}",
                self.channels,
                leading - 1,
                grid.c,
                show(shape)
            );
        }
        self.check_steps(grid.t, first_step)?;
        Ok(grid)
    }

    /// Refuses batch statistics of a row with fewer than two values, as PyTorch does.
    pub fn check_batch_statistics(&self, grid: Grid) -> Result<()> {
        let values = self.values_per_row(grid);
        if values < 2 {
            bail!(
                BatchStatistics,
                "input: batch statistics need more than 1 value per channel, got {values} (T = {}, N = {}, {} in space)",
                grid.t,
                grid.n,
                grid.s
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

    fn check_steps(&self, t: usize, first_step: usize) -> Result<()> {
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
        Ok(())
    }

    fn expected_axes(&self, mode: StepMode) -> &'static str {
        match (self.spatial, mode) {
            (1, StepMode::Single) => "[N, C] or [N, C, L]",
            (1, StepMode::Multi) => "[T, N, C] or [T, N, C, L]",
            (2, StepMode::Single) => "[N, C, H, W]",
            (2, StepMode::Multi) => "[T, N, C, H, W]",
            (_, StepMode::Single) => "[N, C, D, H, W]",
            (_, StepMode::Multi) => "[T, N, C, D, H, W]",
        }
    }
}
