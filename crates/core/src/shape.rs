//! The view `[T, N, C, S]` under which every normalisation layer sees its input.

use crate::{Error, ErrorCode, Result, bail};

/// SpikingJelly's step modes: one time step a call, or a leading time axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepMode {
    Single,
    Multi,
}

impl StepMode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "s",
            Self::Multi => "m",
        }
    }
}

/// `t` time steps, `n` samples, `c` channels, `s` values in space (1 for `[N, C]`), contiguous in
/// that order. A cell is one (t, c): `n * s` values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grid {
    pub t: usize,
    pub n: usize,
    pub c: usize,
    pub s: usize,
}

impl Grid {
    pub fn len(&self) -> usize {
        self.t * self.n * self.c * self.s
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values in one cell.
    pub fn cell(&self) -> usize {
        self.n * self.s
    }

    /// Reads `shape` as a grid. The caller has checked the rank; `shape` starts with T in multi-step mode.
    pub fn of(shape: &[usize], mode: StepMode, layout: Layout) -> Grid {
        let (t, rest) = match mode {
            StepMode::Single => (1, shape),
            StepMode::Multi => (shape[0], &shape[1..]),
        };
        let c = layout.channel_axis(rest.len(), StepMode::Single);
        let s = (1..rest.len()).filter(|&axis| axis != c).map(|axis| rest[axis]).product();
        Grid { t, n: rest[0], c: rest[c], s }
    }
}

/// Where the channels of an input are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// `[T, N, C, S]` in memory.
    #[default]
    Contiguous,
    /// `[T, N, S, C]` in memory: the same as contiguous with N·S samples of one value.
    ChannelsLast,
}

impl Layout {
    /// The contiguous grid that has this memory.
    pub fn fold(self, grid: Grid) -> Grid {
        match self {
            Self::Contiguous => grid,
            Self::ChannelsLast => Grid { n: grid.n * grid.s, s: 1, ..grid },
        }
    }

    /// The axis of the channels in a shape of `rank` axes.
    pub fn channel_axis(self, rank: usize, mode: StepMode) -> usize {
        match (self, mode) {
            (Self::ChannelsLast, _) => rank - 1,
            (Self::Contiguous, StepMode::Single) => 1,
            (Self::Contiguous, StepMode::Multi) => 2,
        }
    }
}

/// Number of elements of `shape`, refusing what cannot be addressed: an extent of 0 makes no room for others, as in NumPy.
pub fn element_count(shape: &[usize]) -> Result<usize> {
    // 2^53 elements: the largest count JavaScript can hold exactly.
    let mut count = 1usize;
    for &extent in shape {
        count = count
            .checked_mul(extent.max(1))
            .filter(|&n| n <= 1 << 53)
            .ok_or_else(|| Error::new(ErrorCode::Shape, format!("shape {} is too large", show(shape))))?;
    }
    Ok(if shape.contains(&0) { 0 } else { count })
}

/// Axes that messages print.
const SHOWN_AXES: usize = 16;

/// `[4, 32, 64]`, as messages print shapes.
pub fn show(shape: &[usize]) -> String {
    let parts: Vec<String> = shape.iter().take(SHOWN_AXES).map(usize::to_string).collect();
    let rest = match shape.len() {
        ..=SHOWN_AXES => String::new(),
        axes => format!(", … ({axes} axes)"),
    };
    format!("[{}{rest}]", parts.join(", "))
}

/// Checks that an input of this shape has time steps, for layers that go from one to the next.
pub(crate) fn expect_steps(steps: usize, shape: &[usize]) -> Result<()> {
    if steps == 0 {
        bail!(Shape, "input: expected at least one time step, got shape {}", show(shape));
    }
    Ok(())
}

/// Checks that two shapes are the same.
pub(crate) fn expect_shape(what: &str, expected: &[usize], got: &[usize]) -> Result<()> {
    if expected != got {
        bail!(Shape, "{what}: expected shape {}, got {}", show(expected), show(got));
    }
    Ok(())
}
