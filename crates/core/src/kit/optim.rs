//! Optimisers, by PyTorch's update rules. Moments are in the dtype of their parameter.
//!
//! ```text
//! SGD     g += λ·p;  b = g in the first step, else μ·b + (1 − dampening)·g;  g = b, or g + μ·b (nesterov)
//!         p −= lr·g
//! Adam    g += λ·p (Adam)  or  p −= lr·λ·p (AdamW)
//!         m += (1 − β1)·(g − m)      v = β2·v + (1 − β2)·g²
//!         p −= lr/(1 − β1^step) · m / (√v/√(1 − β2^step) + eps)
//! ```

use crate::{Result, Tensor, bail};

fn expect(name: &str, what: &str, value: f64, valid: bool) -> Result<()> {
    if valid && value.is_finite() {
        return Ok(());
    }
    bail!(Argument, "{name}: expected {what}, got {value}");
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdSpec {
    pub lr: f64,
    pub momentum: f64,
    pub dampening: f64,
    pub weight_decay: f64,
    pub nesterov: bool,
}

impl SgdSpec {
    pub fn check(&self) -> Result<()> {
        let least = "a number of at least 0";
        expect("lr", least, self.lr, self.lr >= 0.0)?;
        expect("momentum", least, self.momentum, self.momentum >= 0.0)?;
        expect("dampening", "a number", self.dampening, true)?;
        expect("weightDecay", least, self.weight_decay, self.weight_decay >= 0.0)?;
        if self.nesterov && (self.momentum <= 0.0 || self.dampening != 0.0) {
            bail!(Argument, "nesterov: expected a momentum above 0 and no dampening beside it");
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamSpec {
    pub lr: f64,
    pub betas: [f64; 2],
    pub eps: f64,
    pub weight_decay: f64,
    /// AdamW: decay the parameter, not the gradient.
    pub decoupled: bool,
}

impl AdamSpec {
    pub fn check(&self) -> Result<()> {
        let least = "a number of at least 0";
        expect("lr", least, self.lr, self.lr >= 0.0)?;
        expect("eps", least, self.eps, self.eps >= 0.0)?;
        expect("weightDecay", least, self.weight_decay, self.weight_decay >= 0.0)?;
        for beta in self.betas {
            expect("betas", "numbers from 0 to below 1", beta, (0.0..1.0).contains(&beta))?;
        }
        Ok(())
    }
}

/// One step of one parameter. Moves `parameter` and `momentum` in place.
pub struct SgdStep<'a, M> {
    pub spec: SgdSpec,
    pub parameter: &'a Tensor<M>,
    pub grad: &'a Tensor<M>,
    /// Absent without momentum.
    pub momentum: Option<&'a Tensor<M>>,
    /// Whether `momentum` holds nothing yet.
    pub first: bool,
}

/// One step of one parameter. Moves `parameter`, both moments and, after use, `step` in place.
pub struct AdamStep<'a, M> {
    pub spec: AdamSpec,
    pub parameter: &'a Tensor<M>,
    pub grad: &'a Tensor<M>,
    /// exp_avg.
    pub first_moment: &'a Tensor<M>,
    /// exp_avg_sq.
    pub second_moment: &'a Tensor<M>,
    /// int64 of shape `[]`: steps before this one, from 0. It lives on the device, so that a recorded step can
    /// be replayed.
    pub step: &'a Tensor<M>,
}
