//! Cross entropy, emulated, against its definition.

use spikenorm_core::DType;
use spikenorm_core::kit::LogitsGrid;
use spikenorm_cuda::kit::loss;
use spikenorm_cuda::kit::params::LossParams;

use crate::support::buffer::{Buffer, rounded};
use crate::support::case::Random;
use crate::support::emulator::{Emulator, emulator};
use crate::support::kit::{FLOATS, one_multiprocessor, under_every_schedule};
use crate::support::tolerance::compare;

/// Loss, samples classified as labelled, and gradient; samples whose label is no class have none.
fn naive(grid: LogitsGrid, logits: &[f64], labels: &[f64]) -> ([f64; 2], Vec<f64>) {
    let LogitsGrid { t, n, k } = grid;
    let mut grad = vec![0.0; t * n * k];
    let (mut loss, mut correct) = (0.0, 0.0);
    for sample in 0..n {
        if !(0.0..k as f64).contains(&labels[sample]) {
            continue;
        }
        let z: Vec<f64> = (0..k)
            .map(|c| (0..t).map(|t| logits[(t * n + sample) * k + c]).sum::<f64>() / t as f64)
            .collect();
        let total: f64 = z.iter().map(|z| z.exp()).sum();
        loss += total.ln() - z[labels[sample] as usize];
        let ahead = |(c, other): (usize, &f64)| {
            let own = z[labels[sample] as usize];
            *other > own || *other == own && (c as f64) < labels[sample]
        };
        correct += f64::from(u8::from(!z.iter().enumerate().any(ahead)));
        for (c, z) in z.iter().enumerate() {
            let hit = f64::from(u8::from(c as f64 == labels[sample]));
            for step in 0..t {
                grad[(step * n + sample) * k + c] = (z.exp() / total - hit) / (n * t) as f64;
            }
        }
    }
    ([loss / n as f64, correct], grad)
}

/// Report and gradient.
fn run(
    emulator: &Emulator,
    grid: LogitsGrid,
    logits: &Buffer,
    labels: &Buffer,
    [dtype, label_dtype]: [DType; 2],
    offset: usize,
) -> (Vec<f64>, Vec<f64>) {
    let ticket = Buffer::zeroed_words(1);
    let outputs = under_every_schedule(|schedule| {
        let grad = Buffer::poisoned(grid.t * grid.n * grid.k, dtype, offset);
        let report = Buffer::poisoned(3, DType::F64, 0);
        let losses = Buffer::poisoned(2 * grid.n, DType::F64, 0);
        let params = LossParams {
            logits: logits.address(),
            labels: labels.address(),
            grad: grad.address(),
            report: report.address(),
            losses: losses.address(),
            ticket: ticket.address(),
            ..loss::params(grid, label_dtype)
        };
        emulator.run(&loss::launch(dtype, &params, &one_multiprocessor()).unwrap(), schedule)?;
        Ok(vec![report, grad])
    });
    let outputs = outputs.unwrap_or_else(|why| panic!("{why}\n{grid:?} {dtype:?}"));
    (outputs[0].values(), outputs[1].values())
}

#[test]
fn kit_cross_entropy_matches_its_definition_in_every_dtype_at_odd_sizes() {
    let Some(emulator) = emulator() else { return };
    let grids = [(1, 3, 5), (4, 7, 10), (2, 100, 3), (3, 5, 301), (1, 1, 1), (5, 33, 40)];
    for (turn, (t, n, k)) in grids.into_iter().enumerate() {
        let grid = LogitsGrid { t, n, k };
        let mut random = Random::new(turn as u64);
        for dtype in FLOATS {
            for label_dtype in [DType::I64, DType::U8] {
                let x = rounded(&random.normals(t * n * k, 0.5, 2.0), dtype);
                let classes: Vec<f64> = (0..n).map(|_| random.below(k.min(256)) as f64).collect();
                let offset = turn % 2 * dtype.size();
                let logits = Buffer::new(&x, dtype, offset);
                let labels = Buffer::new(&classes, label_dtype, turn % 2 * label_dtype.size());
                let (report, grad) = run(emulator, grid, &logits, &labels, [dtype, label_dtype], offset);
                let ([loss, correct], expected) = naive(grid, &x, &classes);
                compare("loss", &report[..1], &[loss], DType::F64, 1.0).unwrap();
                assert_eq!(report[1..], [-1.0, correct]);
                // The gradient is computed in float64 whatever it is stored in.
                let result = compare("grad", &grad, &expected, dtype, 1.0 / (n * t) as f64);
                result.unwrap_or_else(|why| panic!("{why}\n{grid:?} {dtype:?}"));
            }
        }
    }
}

#[test]
fn kit_cross_entropy_reports_the_first_label_that_is_no_class() {
    let Some(emulator) = emulator() else { return };
    let grid = LogitsGrid { t: 2, n: 90, k: 4 };
    let x = rounded(&Random::new(3).normals(2 * 90 * 4, 0.0, 1.0), DType::F32);
    let logits = Buffer::new(&x, DType::F32, 0);
    for (label_dtype, wrong, places) in
        [(DType::I64, -1.0, vec![73, 41, 42]), (DType::I64, 4.0, vec![0]), (DType::U8, 255.0, vec![89, 88])]
    {
        let mut classes: Vec<f64> = (0..90).map(|sample| f64::from(sample % 4)).collect();
        places.iter().for_each(|&place| classes[place] = wrong);
        let labels = Buffer::new(&classes, label_dtype, 0);
        let (report, grad) = run(emulator, grid, &logits, &labels, [DType::F32, label_dtype], 0);
        assert_eq!(report[1], *places.iter().min().unwrap() as f64, "{label_dtype:?} {wrong}");
        let ([_, correct], expected) = naive(grid, &x, &classes);
        assert_eq!(report[2], correct);
        compare("grad", &grad, &expected, DType::F32, 0.0).unwrap();
        for place in places {
            assert!((0..2).all(|t| grad[(t * 90 + place) * 4..][..4] == [0.0; 4]));
        }
    }
}

#[test]
fn kit_cross_entropy_of_certain_predictions_is_zero() {
    let Some(emulator) = emulator() else { return };
    let grid = LogitsGrid { t: 1, n: 70, k: 40 };
    let classes: Vec<f64> = (0..70).map(|sample| f64::from(sample % 40)).collect();
    let mut x = vec![0.0; 70 * 40];
    (0..70).for_each(|sample| x[sample * 40 + sample % 40] = 1e3);
    let (logits, labels) = (Buffer::new(&x, DType::F32, 0), Buffer::new(&classes, DType::U8, 0));
    let (report, grad) = run(emulator, grid, &logits, &labels, [DType::F32, DType::U8], 0);
    assert_eq!(report, [0.0, -1.0, 70.0]);
    assert!(grad.iter().all(|&grad| grad == 0.0));
}

#[test]
fn kit_cross_entropy_survives_logits_whose_exponential_does_not() {
    let Some(emulator) = emulator() else { return };
    let grid = LogitsGrid { t: 1, n: 2, k: 2 };
    let logits = Buffer::new(&[1e4, 0.0, -1e4, 0.0], DType::F64, 0);
    let labels = Buffer::new(&[1.0, 1.0], DType::I64, 0);
    let (report, grad) = run(emulator, grid, &logits, &labels, [DType::F64, DType::I64], 0);
    assert_eq!((report, grad), (vec![5e3, -1.0, 1.0], vec![0.5, -0.5, 0.0, 0.0]));
}

/// A dead network's logits are all equal, and are no prediction of every class.
#[test]
fn kit_cross_entropy_takes_the_first_of_equal_logits_for_the_prediction() {
    let Some(emulator) = emulator() else { return };
    for k in [3, 70] {
        let grid = LogitsGrid { t: 2, n: 41, k };
        let x = vec![0.25; 2 * 41 * k];
        let classes: Vec<f64> = (0..41).map(|sample| f64::from(sample % 3)).collect();
        let (logits, labels) = (Buffer::new(&x, DType::F32, 0), Buffer::new(&classes, DType::I64, 0));
        let (report, _) = run(emulator, grid, &logits, &labels, [DType::F32, DType::I64], 0);
        assert_eq!(report[2], 14.0);
    }
    let grid = LogitsGrid { t: 1, n: 1, k: 2 };
    let (logits, labels) = (Buffer::new(&[f64::NAN, 1.0], DType::F32, 0), Buffer::new(&[0.0], DType::U8, 0));
    assert_eq!(run(emulator, grid, &logits, &labels, [DType::F32, DType::U8], 0).0[2], 0.0);
}
