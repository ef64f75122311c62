//! Fill, cast and sum, emulated, against the same done value by value.

use half::bf16;
use spikenorm_core::DType;
use spikenorm_cuda::kit::{Operand, elementwise};

use crate::support::buffer::Buffer;
use crate::support::emulator::emulator;
use crate::support::kit::{FLOATS, SIZES, normals, one_multiprocessor, run, under_every_schedule};
use crate::support::tolerance::compare;

/// The float64 rounded, ties to even, to `digits` binary digits after the first, of exponents from `least` on.
fn nearest(value: f64, digits: i32, least: i32, largest: f64) -> f64 {
    if !value.is_finite() {
        return value;
    }
    let exponent = (value.to_bits() >> 52 & 0x7ff) as i32 - 1023;
    let unit = 2f64.powi(exponent.max(least) - digits);
    let rounded = (value / unit).round_ties_even() * unit;
    if rounded.abs() > largest { f64::INFINITY.copysign(value) } else { rounded }
}

/// What `dtype` makes of a float64: rounded once to nearest, or cut towards zero into the range of integers.
fn narrowed(value: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F64 => value,
        DType::F32 => f64::from(value as f32),
        DType::F16 => nearest(value, 10, -14, 65504.0),
        DType::BF16 => nearest(value, 7, -126, bf16::MAX.to_f64()),
        DType::U8 => f64::from(value as u8),
        DType::I64 => value as i64 as f64,
    }
}

fn expect_same(got: &[f64], expected: impl Iterator<Item = f64>, what: &str) {
    for (i, (&got, expected)) in got.iter().zip(expected).enumerate() {
        let same = got == expected || (got.is_nan() && expected.is_nan());
        assert!(same, "{what}, value {i}: expected {expected:e}, got {got:e}");
    }
}

/// Just above the midpoint of two float16, bfloat16 or float32 values, by less than the next format can tell.
const ABOVE_A_TIE: [f64; 3] = [
    1.0 + 1.0 / 2048.0 + 1.0 / (1u64 << 40) as f64,
    1.0 + 1.0 / 256.0 + 1.0 / (1u64 << 40) as f64,
    1.0 + 1.0 / (1u64 << 24) as f64 + 1.0 / (1u64 << 50) as f64,
];

/// Values on both sides of every limit.
const HARD: [f64; 26] = [
    0.0,
    -0.0,
    ABOVE_A_TIE[0],
    -ABOVE_A_TIE[0],
    ABOVE_A_TIE[1],
    ABOVE_A_TIE[2],
    1.0 + 1.0 / 2048.0,
    1.0 + 3.0 / 2048.0,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    1e300,
    -1e300,
    1e-300,
    65519.99,
    65520.0,
    6e-8,
    2.9e-8,
    1e-40,
    254.9,
    255.0,
    256.0,
    -0.9,
    -1.0,
    9.3e18,
    -9.3e18,
];

#[test]
fn kit_fill_rounds_once_and_touches_no_neighbour_at_odd_sizes() {
    let Some(emulator) = emulator() else { return };
    let device = one_multiprocessor();
    for dtype in DType::ALL {
        for (turn, count) in SIZES.into_iter().enumerate() {
            for places in [0, 1, 3] {
                let value = HARD[(turn * 7 + places * 3 + dtype.size()) % HARD.len()];
                let outputs = under_every_schedule(|schedule| {
                    // Five values on either side that are none of its business.
                    let out = Buffer::poisoned(count + 10, dtype, places * dtype.size());
                    let target = Operand::new(out.address() + 5 * dtype.size() as u64, dtype);
                    run(emulator, elementwise::fill(target, count, value, &device), schedule)?;
                    Ok(vec![out])
                });
                let got = outputs.unwrap()[0].values();
                let poison = Buffer::poisoned(1, dtype, 0).values()[0];
                let inside = |i: usize| (5..count + 5).contains(&i);
                let expected =
                    (0..count + 10).map(|i| if inside(i) { narrowed(value, dtype) } else { poison });
                expect_same(&got, expected, &format!("{dtype:?} x {count} = {value}"));
            }
        }
    }
}

#[test]
fn kit_fill_takes_every_value_as_a_cast_from_float64_does() {
    let Some(emulator) = emulator() else { return };
    for dtype in DType::ALL {
        for value in HARD {
            let out = Buffer::poisoned(3, dtype, 0);
            let target = Operand::new(out.address(), dtype);
            run(emulator, elementwise::fill(target, 3, value, &one_multiprocessor()), 0).unwrap();
            expect_same(&out.values(), [narrowed(value, dtype); 3].into_iter(), &format!("{dtype:?}"));
        }
    }
}

#[test]
fn kit_cast_rounds_once_between_all_dtypes_at_odd_sizes() {
    let Some(emulator) = emulator() else { return };
    let device = one_multiprocessor();
    for from in DType::ALL {
        for to in DType::ALL.into_iter().filter(|&to| to != from) {
            for (turn, count) in SIZES.into_iter().enumerate() {
                let mut values: Vec<f64> =
                    normals(count, count, DType::F64).iter().map(|v| 100.0 * v).collect();
                for (value, hard) in values.iter_mut().zip(HARD) {
                    *value = hard;
                }
                // Aligned alike, one value past it in both, apart.
                let places = [[0, 0], [1, 1], [0, 1], [3, 3]][turn];
                let source = Buffer::new(&values, from, places[0] * from.size());
                let outputs = under_every_schedule(|schedule| {
                    let out = Buffer::poisoned(count, to, places[1] * to.size());
                    let operands = [Operand::new(out.address(), to), Operand::new(source.address(), from)];
                    let launch = elementwise::cast(operands[0], operands[1], count, &device);
                    run(emulator, launch, schedule)?;
                    Ok(vec![out])
                });
                let got = outputs.unwrap()[0].values();
                assert_eq!(got.len(), count);
                let expected = source.values().into_iter().map(|value| narrowed(value, to));
                expect_same(&got, expected, &format!("{from:?} to {to:?} x {count}"));
            }
        }
    }
}

#[test]
fn kit_sums_match_in_place_and_out_of_place_at_odd_sizes() {
    let Some(emulator) = emulator() else { return };
    let device = one_multiprocessor();
    for dtype in FLOATS {
        for (turn, count) in SIZES.into_iter().enumerate() {
            let (a, b) = (normals(count, count, dtype), normals(count + 1, count, dtype));
            let [first, second, third] = [[0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 1, 0]][turn];
            let right = Buffer::new(&b, dtype, second * dtype.size());
            let outputs = under_every_schedule(|schedule| {
                let left = Buffer::new(&a, dtype, first * dtype.size());
                let out = Buffer::poisoned(count, dtype, third * dtype.size());
                for target in [out.address(), left.address()] {
                    let terms = [left.address(), right.address()];
                    let launch = elementwise::add(target, terms, dtype, count, &device).unwrap();
                    run(emulator, launch, schedule)?;
                }
                Ok(vec![out, left])
            });
            let outputs = outputs.unwrap();
            let expected: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
            for got in &outputs {
                compare("sum", &got.values(), &expected, dtype, 0.0)
                    .unwrap_or_else(|why| panic!("{why}\n{dtype:?} x {count}"));
            }
            assert_eq!(outputs[0].bits(), outputs[1].bits());
        }
    }
}

#[test]
fn kit_sums_of_integers_are_refused_and_nothing_is_launched_for_no_values() {
    let device = one_multiprocessor();
    assert!(elementwise::add(64, [64, 64], DType::I64, 8, &device).is_err());
    assert!(elementwise::add(64, [64, 64], DType::F32, 0, &device).unwrap().is_none());
    assert!(elementwise::fill(Operand::new(64, DType::U8), 0, 1.0, &device).is_none());
}

#[test]
fn kit_grids_stay_small_whatever_the_size() {
    let device = one_multiprocessor();
    for count in [1 << 20, 1 << 33, 1 << 40] {
        let launch = elementwise::fill(Operand::new(64, DType::U8), count, 1.0, &device).unwrap();
        assert!(launch.blocks <= 8 && launch.params.span.count == count as u64, "{launch:?}");
    }
}
