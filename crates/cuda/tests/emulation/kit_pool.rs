//! Pooling, emulated, against loops over every window.

use spikenorm_core::kit::{Frames, PoolSpec, Window};
use spikenorm_core::{DType, ErrorCode};
use spikenorm_cuda::kit::params::PoolParams;
use spikenorm_cuda::kit::pool::{self, Pass, Pool};

use crate::support::buffer::{Buffer, rounded};
use crate::support::case::Random;
use crate::support::emulator::{Emulator, emulator};
use crate::support::kit::{FLOATS, normals, one_multiprocessor, run, under_every_schedule};
use crate::support::tolerance::compare;

/// Input, kernel, stride and padding, `[vertical, horizontal]`, and planes.
type Shape = ([usize; 2], [usize; 2], [usize; 2], [usize; 2], usize);

const SHAPES: [Shape; 9] = [
    ([4, 4], [2, 2], [2, 2], [0, 0], 40),
    ([7, 5], [3, 3], [1, 1], [1, 1], 6),
    ([9, 6], [3, 2], [2, 3], [1, 0], 5),
    ([1, 31], [1, 4], [1, 5], [0, 2], 3),
    ([5, 5], [5, 5], [5, 5], [0, 0], 7),
    ([11, 13], [3, 5], [4, 2], [0, 2], 2),
    // Indices of four bytes: more than 256 places.
    ([20, 19], [17, 18], [1, 2], [8, 3], 2),
    ([1, 1], [1, 1], [1, 1], [0, 0], 1),
    // Rows and columns that no window reaches.
    ([8, 7], [2, 2], [3, 4], [0, 0], 3),
];

fn spec_and_frames(shape: Shape) -> (PoolSpec, Frames) {
    let (input, kernel, stride, padding, planes) = shape;
    let spec = PoolSpec { window: Window { kernel, stride, padding } };
    spec.check().unwrap();
    let output = spec.window.output(input).unwrap();
    (spec, Frames { samples: planes, channels: 1, input, output })
}

/// Calls `visit(output index, input index, place in the window)` for every value under every window.
fn for_each(spec: &PoolSpec, frames: Frames, mut visit: impl FnMut(usize, usize, usize)) {
    let Window { kernel, stride, padding } = spec.window;
    let ([h, w], [oh, ow]) = (frames.input, frames.output);
    for plane in 0..frames.samples * frames.channels {
        for (y, x) in (0..oh).flat_map(|y| (0..ow).map(move |x| (y, x))) {
            for (i, j) in (0..kernel[0]).flat_map(|i| (0..kernel[1]).map(move |j| (i, j))) {
                let (row, column) = (y * stride[0] + i, x * stride[1] + j);
                if row < padding[0] || column < padding[1] {
                    continue;
                }
                let (row, column) = (row - padding[0], column - padding[1]);
                if row < h && column < w {
                    visit((plane * oh + y) * ow + x, (plane * h + row) * w + column, i * kernel[1] + j);
                }
            }
        }
    }
}

struct Sizes {
    inputs: usize,
    outputs: usize,
}

fn sizes(frames: Frames) -> Sizes {
    let planes = frames.samples * frames.channels;
    Sizes { inputs: planes * frames.input_plane(), outputs: planes * frames.output_plane() }
}

fn launch(
    emulator: &Emulator,
    pool: Pool,
    pass: Pass,
    dtype: DType,
    params: &PoolParams,
    schedule: u32,
) -> Result<(), String> {
    run(emulator, pool::launch(pool, pass, dtype, params, &one_multiprocessor()).unwrap(), schedule)
}

fn check_average(emulator: &Emulator, shape: Shape, dtype: DType, offset: usize) -> Result<(), String> {
    let (spec, frames) = spec_and_frames(shape);
    let Sizes { inputs, outputs } = sizes(frames);
    let (x, dy) = (normals(inputs, inputs, dtype), normals(outputs, outputs, dtype));
    let share = 1.0 / (spec.window.kernel[0] * spec.window.kernel[1]) as f64;
    let (mut y, mut dx) = (vec![0.0; outputs], vec![0.0; inputs]);
    for_each(&spec, frames, |out, at, _| {
        y[out] += x[at] * share;
        dx[at] += dy[out] * share;
    });
    for (pass, input, expected) in [(Pass::Forward, &x, &y), (Pass::Backward, &dy, &dx)] {
        let input = Buffer::new(input, dtype, offset);
        let got = under_every_schedule(|schedule| {
            let out = Buffer::poisoned(expected.len(), dtype, offset);
            let params = PoolParams {
                input: input.address(),
                out: out.address(),
                ..pool::params(&spec, frames).unwrap()
            };
            launch(emulator, Pool::Average, pass, dtype, &params, schedule)?;
            Ok(vec![out])
        })?;
        compare(&format!("{pass:?}"), &got[0].values(), expected, dtype, 1.0)?;
    }
    Ok(())
}

fn check_maximum(emulator: &Emulator, shape: Shape, dtype: DType, offset: usize) -> Result<(), String> {
    let (spec, frames) = spec_and_frames(shape);
    let Sizes { inputs, outputs } = sizes(frames);
    let mut random = Random::new(inputs as u64);
    // Few different values, so that some are equal, and a NaN now and then.
    let draw = |_| if random.below(40) == 0 { f64::NAN } else { random.below(5) as f64 - 2.0 };
    let x = rounded(&(0..inputs).map(draw).collect::<Vec<_>>(), dtype);
    let dy = normals(outputs, outputs, dtype);
    let (mut y, mut winner, mut dx) =
        (vec![f64::NEG_INFINITY; outputs], vec![(0, 0); outputs], vec![0.0; inputs]);
    for_each(&spec, frames, |out, at, place| {
        if x[at] > y[out] || x[at].is_nan() {
            (y[out], winner[out]) = (x[at], (at, place));
        }
    });
    for (out, (at, _)) in winner.iter().enumerate() {
        dx[*at] += dy[out];
    }
    let size = spec.index_bytes();
    let input = Buffer::new(&x, dtype, offset);
    let forward = |record: bool| {
        under_every_schedule(|schedule| {
            let out = Buffer::poisoned(outputs, dtype, offset);
            let indices = Buffer::poisoned(outputs * size, DType::U8, 0);
            let params = PoolParams {
                input: input.address(),
                out: out.address(),
                indices: if record { indices.address() } else { 0 },
                ..pool::params(&spec, frames).unwrap()
            };
            launch(emulator, Pool::Maximum, Pass::Forward, dtype, &params, schedule)?;
            Ok(vec![out, indices])
        })
    };
    let recorded = forward(true)?;
    for (got, expected) in recorded[0].values().iter().zip(&y) {
        if got != expected && !(got.is_nan() && expected.is_nan()) {
            return Err(format!("expected {expected}, got {got}"));
        }
    }
    let places: Vec<usize> = match size {
        1 => recorded[1].bits().iter().map(|&place| place.into()).collect(),
        _ => recorded[1]
            .bits()
            .chunks_exact(4)
            .map(|b| u32::from_le_bytes(b.try_into().unwrap()) as usize)
            .collect(),
    };
    if !places.iter().eq(winner.iter().map(|(_, place)| place)) {
        return Err("other places".into());
    }
    if forward(false)?[0].bits() != recorded[0].bits() {
        return Err("another maximum where nothing is recorded".into());
    }
    let gradient = Buffer::new(&dy, dtype, offset);
    let backward = under_every_schedule(|schedule| {
        let out = Buffer::poisoned(inputs, dtype, offset);
        let params = PoolParams {
            input: gradient.address(),
            out: out.address(),
            indices: recorded[1].address(),
            ..pool::params(&spec, frames).unwrap()
        };
        launch(emulator, Pool::Maximum, Pass::Backward, dtype, &params, schedule)?;
        Ok(vec![out])
    })?;
    compare("dx", &backward[0].values(), &dx, dtype, 1.0)
}

#[test]
fn kit_pooling_matches_loops_over_the_windows_in_every_dtype_at_odd_sizes() {
    let Some(emulator) = emulator() else { return };
    for (turn, shape) in SHAPES.into_iter().enumerate() {
        for dtype in FLOATS {
            let offset = turn % 2 * dtype.size();
            let average = check_average(emulator, shape, dtype, offset);
            average.unwrap_or_else(|why| panic!("average, {why}\n{shape:?} {dtype:?}"));
            let maximum = check_maximum(emulator, shape, dtype, offset);
            maximum.unwrap_or_else(|why| panic!("maximum, {why}\n{shape:?} {dtype:?}"));
        }
    }
}

#[test]
fn kit_pooling_of_no_batch_launches_nothing_and_images_past_32_bits_are_refused() {
    let (spec, frames) = spec_and_frames(SHAPES[0]);
    let none = pool::params(&spec, Frames { samples: 0, ..frames }).unwrap();
    for pass in [Pass::Forward, Pass::Backward] {
        let device = one_multiprocessor();
        assert!(pool::launch(Pool::Average, pass, DType::F32, &none, &device).unwrap().is_none());
        assert!(pool::launch(Pool::Average, pass, DType::I64, &none, &device).is_err());
    }
    let error = pool::params(&spec, Frames { input: [1, 1 << 33], ..frames }).err().unwrap();
    assert_eq!(error.code, ErrorCode::Shape);
}
