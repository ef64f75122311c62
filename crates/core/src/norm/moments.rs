//! Count, mean and sum of squared deviations, merged by Chan's formula.
//!
//! The mean of float64 values has two parts, so that deviations from it keep all their digits however large it is. For other
//! types float64 alone is wide enough, and the second part is 0.

use bytemuck::Zeroable;

use crate::{Result, workspace};

/// Of one set of values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Zeroable)]
pub struct Moments {
    pub count: f64,
    pub mean: f64,
    /// What `mean` leaves out.
    pub low: f64,
    pub m2: f64,
}

/// a + b and what that leaves out.
#[inline(always)]
fn two_sum(a: f64, b: f64) -> [f64; 2] {
    let sum = a + b;
    let of_b = sum - a;
    [sum, (a - (sum - of_b)) + (b - of_b)]
}

impl Moments {
    /// Moments of `count` values from their mean deviation from `pivot`, a value near the mean, and the sum of the deviations'
    /// squares.
    #[inline(always)]
    pub fn from_shift(count: f64, pivot: f64, shift: f64, squares: f64) -> Self {
        let m2 = squares - shift * shift * count;
        // NaN must survive: a plain max(0.0) would turn it into 0.
        Self { count, mean: pivot + shift, low: 0.0, m2: if m2 < 0.0 { 0.0 } else { m2 } }
    }

    /// The same with both parts of the mean.
    #[inline(always)]
    pub fn in_two_parts(count: f64, pivot: f64, shift: f64, squares: f64) -> Self {
        let [mean, low] = two_sum(pivot, shift);
        Self { mean, low, ..Self::from_shift(count, pivot, shift, squares) }
    }

    /// TWO_PARTS: of the mean.
    #[inline(always)]
    pub fn merge<const TWO_PARTS: bool>(&mut self, other: Moments) {
        if self.count == 0.0 {
            *self = other;
        } else if other.count != 0.0 {
            let count = self.count + other.count;
            let mut delta = other.mean - self.mean;
            if TWO_PARTS {
                delta += other.low - self.low;
                [self.mean, self.low] = moved([self.mean, self.low], delta * (other.count / count));
            } else {
                self.mean += delta * (other.count / count);
            }
            self.m2 += other.m2 + delta * delta * (self.count * other.count / count);
            self.count = count;
        }
    }
}

/// A mean in two parts, moved by `step`.
#[inline(always)]
fn moved([mean, low]: [f64; 2], step: f64) -> [f64; 2] {
    let [mean, error] = two_sum(mean, step);
    two_sum(mean, low + error)
}

/// Of neighbouring channels with as many values each: what merging divides by is found once, and the rest goes by vectors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChannelMoments {
    pub count: f64,
    /// Per channel.
    pub mean: Vec<f64>,
    /// What the means leave out; empty where they have one part.
    pub low: Vec<f64>,
    pub m2: Vec<f64>,
}

impl ChannelMoments {
    /// Of no values.
    pub fn none(channels: usize, two_parts: bool) -> Result<Self> {
        Ok(Self {
            count: 0.0,
            mean: workspace::zeros(channels)?,
            low: workspace::zeros(if two_parts { channels } else { 0 })?,
            m2: workspace::zeros(channels)?,
        })
    }

    /// From the moments of each channel, which are of as many values each.
    pub fn of(cells: &[Moments], two_parts: bool) -> Result<Self> {
        let lows = if two_parts { cells } else { &[] };
        Ok(Self {
            count: cells.first().map_or(0.0, |cell| cell.count),
            mean: workspace::collect(cells.iter().map(|cell| cell.mean))?,
            low: workspace::collect(lows.iter().map(|cell| cell.low))?,
            m2: workspace::collect(cells.iter().map(|cell| cell.m2))?,
        })
    }

    fn channel(&self, c: usize) -> Moments {
        let low = self.low.get(c).copied().unwrap_or_default();
        Moments { count: self.count, mean: self.mean[c], low, m2: self.m2[c] }
    }

    /// Sets those of a channel, of as many values as there are.
    #[inline(always)]
    pub fn set(&mut self, c: usize, cell: Moments) {
        (self.mean[c], self.m2[c]) = (cell.mean, cell.m2);
        if let Some(low) = self.low.get_mut(c) {
            *low = cell.low;
        }
    }

    /// Puts the moments of channels `first` and on.
    pub fn place(&mut self, first: usize, part: &Self) {
        for (all, part) in
            [(&mut self.mean, &part.mean), (&mut self.low, &part.low), (&mut self.m2, &part.m2)]
        {
            if !part.is_empty() {
                all[first..first + part.len()].copy_from_slice(part);
            }
        }
    }

    /// Merges the moments of as many channels.
    #[inline(always)]
    pub fn merge(&mut self, other: &Self) {
        if self.count == 0.0 {
            self.count = other.count;
            self.mean.copy_from_slice(&other.mean);
            self.low.copy_from_slice(&other.low);
            self.m2.copy_from_slice(&other.m2);
        } else if !self.low.is_empty() {
            for c in 0..self.mean.len() {
                let mut cell = self.channel(c);
                cell.merge::<true>(other.channel(c));
                self.set(c, cell);
            }
            self.count += other.count;
        } else if other.count != 0.0 {
            let count = self.count + other.count;
            let (share, product) = (other.count / count, self.count * other.count / count);
            let other_m2 = &other.m2[..other.mean.len()];
            let cells = self.mean.iter_mut().zip(&mut self.m2);
            for ((mean, m2), (other_mean, other_m2)) in cells.zip(other.mean.iter().zip(other_m2)) {
                let delta = other_mean - *mean;
                *mean += delta * share;
                *m2 += other_m2 + delta * delta * product;
            }
            self.count = count;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn moments(values: &[f64]) -> Moments {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        Moments { count, mean, low: 0.0, m2: values.iter().map(|x| (x - mean) * (x - mean)).sum() }
    }

    proptest! {
        #[test]
        fn channels_merge_as_each_of_them_would(
            parts in prop::collection::vec(prop::collection::vec(-3.0..5.0f64, 3), 2..40), cut in 0.0..1.0f64,
            two_parts: bool,
        ) {
            // parts[n][c], cut in two by n: either half may be empty.
            let cut = (cut * parts.len() as f64) as usize;
            let channel = |c: usize, n: std::ops::Range<usize>| -> Vec<f64> {
                parts[n].iter().map(|values| values[c]).collect()
            };
            let half = |n: std::ops::Range<usize>| match n.len() {
                0 => ChannelMoments::none(3, two_parts),
                _ => ChannelMoments::of(&[0, 1, 2].map(|c| moments(&channel(c, n.clone()))), two_parts),
            }
            .expect("memory");
            let mut merged = half(0..cut);
            merged.merge(&half(cut..parts.len()));
            prop_assert_eq!(merged.count, parts.len() as f64);
            for c in 0..3 {
                let whole = moments(&channel(c, 0..parts.len()));
                prop_assert!((merged.mean[c] - whole.mean).abs() < 1e-13);
                prop_assert!((merged.m2[c] - whole.m2).abs() < 1e-12 * (1.0 + whole.m2));
            }
        }
    }
}
