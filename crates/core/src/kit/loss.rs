//! Cross entropy of softmax logits, averaged over the batch; logits over time are decoded by their mean.
//!
//! ```text
//! z = (1/T)·Σ_t logits_t     loss = −(1/N)·Σ_n log softmax(z_n)[label_n]
//! grad_t = (softmax(z) − onehot(label)) / (N·T)
//! ```

use crate::{DType, Result, Tensor, bail, show};

/// `[T, N, K]`; T = 1 for `[N, K]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogitsGrid {
    pub t: usize,
    pub n: usize,
    pub k: usize,
}

impl LogitsGrid {
    /// Reads the shape of logits, and checks labels `[N]` against it.
    pub fn of(logits: &[usize], labels: &[usize]) -> Result<Self> {
        let grid = match *logits {
            [n, k] => Self { t: 1, n, k },
            [t, n, k] => Self { t, n, k },
            _ => bail!(Shape, "logits: expected [N, K] or [T, N, K], got shape {}", show(logits)),
        };
        if grid.t == 0 || grid.n == 0 || grid.k == 0 {
            bail!(Shape, "logits: expected at least one value, got shape {}", show(logits));
        }
        if labels != [grid.n] {
            bail!(Shape, "labels: expected shape [{}], one per sample, got {}", grid.n, show(labels));
        }
        Ok(grid)
    }

    /// Refuses label dtypes other than int64 and uint8.
    pub fn check_labels(dtype: DType) -> Result<()> {
        if !matches!(dtype, DType::I64 | DType::U8) {
            bail!(Dtype, "labels: expected int64 or uint8, got {}", dtype.name());
        }
        Ok(())
    }

    /// The class a label names.
    pub fn class(&self, sample: usize, label: i64) -> Result<usize> {
        match usize::try_from(label) {
            Ok(class) if class < self.k => Ok(class),
            _ => bail!(
                Argument,
                "labels: expected a class from 0 to {}, got {label} for sample {sample}",
                self.k - 1
            ),
        }
    }
}

pub struct CrossEntropyOutput<M> {
    /// float64 `[3]`: the loss; the first sample whose label is no class, else −1; how many samples have their
    /// largest logit, the first of equals, at their label. Where a label is no class, the loss means nothing and
    /// that sample's gradient is 0: a device finds out without making the host wait.
    pub report: Tensor<M>,
    /// Of the logits, in their shape and dtype.
    pub grad: Tensor<M>,
}
