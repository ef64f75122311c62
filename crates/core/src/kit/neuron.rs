//! Integrate-and-fire neurons, as SpikingJelly's `IFNode` and `LIFNode`: charge, fire, reset.
//!
//! With state v, threshold θ, reset voltage u (hard reset) or none (soft reset), and g the surrogate
//! derivative at h − θ (0 in the reset's path where it is detached):
//!
//! ```text
//! charge   IF                    h = v + x
//!          LIF, decay_input      h = v + (x − (v − u))/τ
//!          LIF otherwise         h = v − (v − u)/τ + x             (u = 0 under soft reset)
//! fire     s = 1 where h ≥ θ, else 0
//! reset    hard                  v' = u where s, else h
//!          soft                  v' = h − s·θ
//!
//! backward, with e the gradient of v', t descending
//!          hard   δ = ds·g + e·((1 − s) + (u − h)·g)
//!          soft   δ = ds·g + e·(1 − θ·g)
//!          dx = δ·∂h/∂x          the next e = δ·∂h/∂v
//! ```
//!
//! Surrogates: atan `(α/2)/(1 + (π/2·α·z)²)`, α = 2; sigmoid `α·σ(αz)·(1 − σ(αz))`, α = 4.

use crate::shape::expect_steps;
use crate::{DType, Result, StepMode, Tensor, bail, show};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Charge {
    /// No leak.
    Integrate,
    Leaky {
        tau: f64,
        /// Whether the input is divided by τ too.
        decay_input: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Surrogate {
    Atan { alpha: f64 },
    Sigmoid { alpha: f64 },
}

impl Surrogate {
    /// SpikingJelly's surrogate of that name with its default slope.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "atan" => Ok(Self::Atan { alpha: 2.0 }),
            "sigmoid" => Ok(Self::Sigmoid { alpha: 4.0 }),
            _ => bail!(Argument, "surrogate: expected 'atan' or 'sigmoid', got '{name}'"),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct NeuronSpec {
    pub charge: Charge,
    pub v_threshold: f64,
    /// `None`: soft reset.
    pub v_reset: Option<f64>,
    pub surrogate: Surrogate,
    /// Whether no gradient goes through the reset.
    pub detach_reset: bool,
}

impl NeuronSpec {
    pub fn check(&self) -> Result<()> {
        if let Charge::Leaky { tau, .. } = self.charge
            && !(tau > 1.0 && tau.is_finite())
        {
            bail!(Argument, "tau: expected a number above 1, got {tau}");
        }
        if !self.v_threshold.is_finite() {
            bail!(Argument, "vThreshold: expected a finite number, got {}", self.v_threshold);
        }
        if let Some(v_reset) = self.v_reset
            && !v_reset.is_finite()
        {
            bail!(Argument, "vReset: expected a finite number or null, got {v_reset}");
        }
        Ok(())
    }

    /// The voltage of a neuron that has seen nothing.
    pub fn initial_voltage(&self) -> f64 {
        self.v_reset.unwrap_or(0.0)
    }

    /// ∂h/∂x and ∂h/∂v.
    pub fn charge_slopes(&self) -> (f64, f64) {
        match self.charge {
            Charge::Integrate => (1.0, 1.0),
            Charge::Leaky { tau, decay_input } => {
                (if decay_input { 1.0 / tau } else { 1.0 }, 1.0 - 1.0 / tau)
            }
        }
    }

    /// Reads `shape`, `[N, *]` or `[T, N, *]`, as steps of neurons; `state` is the shape of a voltage
    /// carried over, if any.
    pub fn grid(&self, shape: &[usize], mode: StepMode, state: Option<&[usize]>) -> Result<NeuronGrid> {
        let leading = usize::from(mode == StepMode::Multi);
        if shape.len() < leading + 1 {
            let axes = if mode == StepMode::Multi { "[T, N, ...]" } else { "[N, ...]" };
            bail!(Shape, "input: expected {axes} in step mode '{}', got shape {}", mode.name(), show(shape));
        }
        let (steps, neurons) = shape.split_at(leading);
        let count = steps.iter().product();
        expect_steps(count, shape)?;
        if let Some(state) = state
            && state != neurons
        {
            bail!(
                Shape,
                "input: expected {} per time step as in the state carried over, got {}; call reset() before a new batch",
                show(state),
                show(neurons)
            );
        }
        Ok(NeuronGrid { steps: count, neurons: neurons.iter().product() })
    }
}

/// `[T, neurons]`, contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeuronGrid {
    pub steps: usize,
    pub neurons: usize,
}

pub struct NeuronForward<'a, M> {
    pub spec: &'a NeuronSpec,
    pub grid: NeuronGrid,
    pub x: &'a Tensor<M>,
    /// Voltage before the first step, the input's shape without T, in the parameter dtype; `None` is the
    /// initial voltage.
    pub state: Option<&'a Tensor<M>>,
    pub state_shape: &'a [usize],
    /// Whether a backward may follow.
    pub record: bool,
}

pub struct NeuronOutput<M> {
    /// 0 or 1, in the input's shape and dtype.
    pub spikes: Tensor<M>,
    /// Voltage after the last step.
    pub state: Tensor<M>,
    pub saved: Option<NeuronSaved<M>>,
}

/// The voltages before reset alone: spikes follow from them, and the input is not needed.
pub struct NeuronSaved<M> {
    pub spec: NeuronSpec,
    pub grid: NeuronGrid,
    pub input_shape: Vec<usize>,
    pub input_dtype: DType,
    pub state_shape: Vec<usize>,
    /// h, `[T, neurons]`, in the parameter dtype.
    pub voltages: Tensor<M>,
}

pub struct NeuronGrads<M> {
    pub dx: Tensor<M>,
    /// Gradient of the voltage before the first step.
    pub state: Tensor<M>,
}
