//! Count, mean and sum of squared deviations, merged by Chan's formula.

use crate::{Result, workspace};

/// Of one set of values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    pub count: f64,
    pub mean: f64,
    pub m2: f64,
}

impl Moments {
    /// Moments of `count` values from the sums of their deviations from `pivot`, a value near the mean, and of the
    /// deviations' squares.
    #[inline(always)]
    pub fn from_deviations(count: f64, pivot: f64, sum: f64, squares: f64) -> Self {
        Self::from_shift(count, pivot, sum / count, squares)
    }

    /// The same from the mean deviation.
    #[inline(always)]
    pub fn from_shift(count: f64, pivot: f64, shift: f64, squares: f64) -> Self {
        let m2 = squares - shift * shift * count;
        // NaN must survive: a plain max(0.0) would turn it into 0.
        Self { count, mean: pivot + shift, m2: if m2 < 0.0 { 0.0 } else { m2 } }
    }

    #[inline(always)]
    pub fn merge(&mut self, other: Moments) {
        if self.count == 0.0 {
            *self = other;
        } else if other.count != 0.0 {
            let count = self.count + other.count;
            let delta = other.mean - self.mean;
            self.mean += delta * (other.count / count);
            self.m2 += other.m2 + delta * delta * (self.count * other.count / count);
            self.count = count;
        }
    }
}

/// Of neighbouring channels with as many values each: what merging divides by is found once, and the rest goes by vectors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChannelMoments {
    pub count: f64,
    /// Per channel.
    pub mean: Vec<f64>,
    pub m2: Vec<f64>,
}

impl ChannelMoments {
    /// Of no values.
    pub fn none(channels: usize) -> Result<Self> {
        Ok(Self {
            count: 0.0,
            mean: workspace::filled(0.0, channels)?,
            m2: workspace::filled(0.0, channels)?,
        })
    }

    /// From the moments of each channel, which are of as many values each.
    pub fn of(cells: &[Moments]) -> Result<Self> {
        Ok(Self {
            count: cells.first().map_or(0.0, |cell| cell.count),
            mean: workspace::collect(cells.iter().map(|cell| cell.mean))?,
            m2: workspace::collect(cells.iter().map(|cell| cell.m2))?,
        })
    }

    /// Merges the moments of as many channels.
    #[inline(always)]
    pub fn merge(&mut self, other: &Self) {
        if self.count == 0.0 {
            self.count = other.count;
            self.mean.copy_from_slice(&other.mean);
            self.m2.copy_from_slice(&other.m2);
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
        Moments { count, mean, m2: values.iter().map(|x| (x - mean) * (x - mean)).sum() }
    }

    proptest! {
        #[test]
        fn channels_merge_as_each_of_them_would(
            parts in prop::collection::vec(prop::collection::vec(-3.0..5.0f64, 3), 2..40), cut in 0.0..1.0f64,
        ) {
            // parts[n][c], cut in two by n: either half may be empty.
            let cut = (cut * parts.len() as f64) as usize;
            let channel = |c: usize, n: std::ops::Range<usize>| -> Vec<f64> {
                parts[n].iter().map(|values| values[c]).collect()
            };
            let half = |n: std::ops::Range<usize>| match n.len() {
                0 => ChannelMoments::none(3),
                _ => ChannelMoments::of(&[0, 1, 2].map(|c| moments(&channel(c, n.clone())))),
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
