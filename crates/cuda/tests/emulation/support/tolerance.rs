//! How far a result may be from the reference, and how a failure is told.

use spikenorm_core::DType;

/// Relative to the largest reference value of the tensor: what the library promises for each dtype of
/// arithmetic.
fn gate(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-12,
        // Half types compute in float32.
        _ => 1e-6,
    }
}

/// Half a unit in the last place, relative and at the smallest: a result is rounded to its dtype once.
fn rounding(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::F16 => (2f64.powi(-11), 2f64.powi(-25)),
        DType::BF16 => (2f64.powi(-8), 2f64.powi(-134)),
        _ => (0.0, 0.0),
    }
}

/// `floor`: a size the tensor is measured by where its own values are smaller, as sums that cancel are.
pub fn compare(what: &str, got: &[f64], expected: &[f64], dtype: DType, floor: f64) -> Result<(), String> {
    compare_rounded(what, got, expected, dtype, floor, 1.0)
}

/// The same where `roundings` of both sides together stand between them: two, for what two devices have found.
pub fn compare_rounded(
    what: &str,
    got: &[f64],
    expected: &[f64],
    dtype: DType,
    floor: f64,
    roundings: f64,
) -> Result<(), String> {
    if got.len() != expected.len() {
        return Err(format!("{what}: {} values, expected {}", got.len(), expected.len()));
    }
    let largest = expected.iter().filter(|v| v.is_finite()).fold(floor, |m, v| m.max(v.abs()));
    let (relative, least) = rounding(dtype);
    let mut worst = (0.0, 0);
    for (i, (&g, &e)) in got.iter().zip(expected).enumerate() {
        // A mean of values with an infinity among them may be that or NaN.
        if !g.is_finite() && !e.is_finite() {
            continue;
        }
        let allowed = gate(dtype) * largest + roundings * (relative * e.abs() * 1.001).max(least);
        let excess = (g - e).abs() / allowed;
        let excess = if excess.is_nan() { f64::INFINITY } else { excess };
        if excess > worst.0 {
            worst = (excess, i);
        }
    }
    if worst.0 > 1.0 {
        let (excess, i) = worst;
        return Err(format!(
            "{what}[{i}]: expected {:e}, got {:e}, {excess:.3} times the error allowed (largest value {largest:e})",
            expected[i], got[i]
        ));
    }
    Ok(())
}
