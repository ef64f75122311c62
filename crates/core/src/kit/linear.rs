//! The fully connected layer: `y = x·wᵀ + b` over the last axis, `dx = dy·w`, `dw = dyᵀ·x`, `db = Σ dy`.

use crate::{Result, Tensor, bail, element_count, show};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearSpec {
    pub in_features: usize,
    pub out_features: usize,
}

impl LinearSpec {
    pub fn check(&self) -> Result<()> {
        for (name, features) in [("inFeatures", self.in_features), ("outFeatures", self.out_features)] {
            if features == 0 {
                bail!(Argument, "{name}: expected an integer of at least 1, got 0");
            }
        }
        element_count(&self.weight_shape()).map(|_| ())
    }

    pub fn weight_shape(&self) -> [usize; 2] {
        [self.out_features, self.in_features]
    }

    /// Rows of `shape`, `[*, inFeatures]`.
    pub fn rows(&self, shape: &[usize]) -> Result<usize> {
        match shape.split_last() {
            Some((&last, rows)) if !rows.is_empty() && last == self.in_features => Ok(rows.iter().product()),
            _ => bail!(
                Shape,
                "input: expected [N, {0}] or [T, N, {0}] (inFeatures = {0}), got shape {1}",
                self.in_features,
                show(shape)
            ),
        }
    }

    /// Shape of the output beside an input of shape `input`.
    pub fn output_shape(&self, input: &[usize]) -> Vec<usize> {
        let mut shape = input.to_vec();
        if let Some(last) = shape.last_mut() {
            *last = self.out_features;
        }
        shape
    }
}

pub struct LinearForward<'a, M> {
    pub spec: &'a LinearSpec,
    pub rows: usize,
    pub x: &'a Tensor<M>,
    /// `[out, in]`.
    pub weight: &'a Tensor<M>,
    /// `[out]`.
    pub bias: Option<&'a Tensor<M>>,
    /// Whether a backward may follow.
    pub record: bool,
}

/// The input (shared, not copied) and a copy of the weight.
pub struct LinearSaved<M> {
    pub spec: LinearSpec,
    pub rows: usize,
    pub x: Tensor<M>,
    pub weight: Tensor<M>,
    pub has_bias: bool,
}
