//! CUDA graphs: a replay does what the captured calls would do, on memory that stays.

use std::panic::{AssertUnwindSafe, catch_unwind};

use spikenorm_core::kit::{LinearForward, LinearSpec};
use spikenorm_core::norm::{Layout, NormForward, NormSpec, Rows, RunningUpdate, Statistics};
use spikenorm_core::{DType, Error, ErrorCode, Grid, bail};
use spikenorm_cuda::driver::{Cuda, Graph, cancel_captures, open};

use crate::support::{CudaTensor, device, tensor, values};

fn accumulate_one(cuda: &Cuda, target: &CudaTensor) -> Graph {
    let one = tensor(cuda, &vec![1.0; target.len()]);
    // `one` is dropped here, and used by every replay.
    cuda.capture(|| cuda.accumulate(target, &one)).unwrap().0
}

#[test]
fn nothing_runs_before_the_first_replay_and_everything_at_each() {
    let Some(cuda) = device() else { return };
    let target = tensor(&cuda, &[5.0; 8]);
    let graph = accumulate_one(&cuda, &target);
    assert_eq!(values(&cuda, &target), [5.0; 8]);
    graph.replay().unwrap();
    assert_eq!(values(&cuda, &target), [6.0; 8]);
    graph.replay().unwrap();
    graph.replay().unwrap();
    assert_eq!(values(&cuda, &target), [8.0; 8]);
}

#[test]
fn memory_that_a_graph_uses_stays_however_it_is_dropped() {
    let Some(cuda) = device() else { return };
    let (target, graph, view);
    {
        let inner = tensor(&cuda, &[0.0; 16]);
        graph = accumulate_one(&cuda, &inner);
        view = inner.rows(8, 8);
        target = inner;
    }
    drop(target);
    // Takes what has been freed, where something has.
    let other: Vec<_> = (0..20).map(|_| tensor(&cuda, &[7.0; 16])).collect();
    for _ in 0..3 {
        graph.replay().unwrap();
    }
    cuda.synchronize().unwrap();
    assert_eq!(values(&cuda, &view), [3.0; 8]);
    for x in &other {
        assert_eq!(values(&cuda, x), [7.0; 16]);
    }
}

#[test]
fn tensors_made_in_a_capture_outlive_the_graph() {
    let Some(cuda) = device() else { return };
    let x = tensor(&cuda, &[2.0; 8]);
    let (graph, y) = cuda.capture(|| cuda.add(&x, &x)).unwrap();
    let (second, z) = cuda.capture(|| cuda.add(&y, &y)).unwrap();
    graph.replay().unwrap();
    drop((graph, x));
    second.replay().unwrap();
    drop(second);
    let _other: Vec<_> = (0..20).map(|_| tensor(&cuda, &[7.0; 8])).collect();
    assert_eq!(values(&cuda, &y), [4.0; 8]);
    drop(y);
    assert_eq!(values(&cuda, &z), [8.0; 8]);
}

#[test]
fn a_second_graph_keeps_the_memory_of_the_first() {
    let Some(cuda) = device() else { return };
    let x = tensor(&cuda, &[2.0; 8]);
    let (first, y) = cuda.capture(|| cuda.add(&x, &x)).unwrap();
    first.replay().unwrap();
    let total = tensor(&cuda, &[0.0; 8]);
    let (second, ()) = cuda.capture(|| cuda.accumulate(&total, &y)).unwrap();
    drop((first, y, x));
    let _other: Vec<_> = (0..20).map(|_| tensor(&cuda, &[7.0; 8])).collect();
    second.replay().unwrap();
    second.replay().unwrap();
    assert_eq!(values(&cuda, &total), [8.0; 8]);
}

#[test]
fn memory_freed_in_a_capture_serves_the_rest_of_it() {
    let Some(cuda) = device() else { return };
    let x = tensor(&cuda, &[1.0; 1024]);
    let (graph, y) = cuda
        .capture(|| {
            let mut y = cuda.add(&x, &x)?;
            for _ in 0..9 {
                y = cuda.add(&y, &y)?;
            }
            Ok(y)
        })
        .unwrap();
    assert_eq!(graph.bytes(), 2 * 4096);
    let with = cuda.memory_stats().unwrap().reserved;
    for _ in 0..2 {
        graph.replay().unwrap();
        assert_eq!(values(&cuda, &y), [1024.0; 1024]);
    }
    drop((graph, y));
    assert_eq!(cuda.memory_stats().unwrap().reserved, with - 2 * 4096);
}

/// A training-mode pass over one time step: y and dx, with the running statistics moved.
struct Pass {
    spec: NormSpec,
    grid: Grid,
    x: CudaTensor,
    dy: CudaTensor,
    mean: CudaTensor,
    var: CudaTensor,
    counters: CudaTensor,
}

impl Pass {
    fn new(cuda: &Cuda, grid: Grid) -> Self {
        let numbers = |seed: usize| -> Vec<f32> {
            (0..grid.len()).map(|i| ((i * 7919 + seed * 104_729) % 1000) as f32 / 500.0 - 1.0).collect()
        };
        let shape = [grid.t, grid.n, grid.c, grid.s];
        let spec = NormSpec {
            spatial: 1,
            channels: grid.c,
            layout: Layout::Contiguous,
            steps: None,
            statistics: Rows::Shared,
            weight: Rows::Absent,
            bias: Rows::Absent,
            time_scale: false,
            eps: 1e-5,
        };
        Self {
            spec,
            grid,
            x: tensor(cuda, &numbers(1)).reshape(&shape).unwrap(),
            dy: tensor(cuda, &numbers(2)).reshape(&shape).unwrap(),
            mean: tensor(cuda, &vec![0.0; grid.c]).reshape(&[1, grid.c]).unwrap(),
            var: tensor(cuda, &vec![1.0; grid.c]).reshape(&[1, grid.c]).unwrap(),
            counters: cuda.upload(&[0; 8], &[1], DType::I64).unwrap(),
        }
    }

    fn run(&self, cuda: &Cuda) -> Result<(CudaTensor, CudaTensor), Error> {
        let update =
            RunningUpdate { mean: &self.mean, var: &self.var, counters: &self.counters, momentum: Some(0.1) };
        let output = cuda.norm_forward(&NormForward {
            spec: &self.spec,
            grid: self.grid,
            x: &self.x,
            weight: None,
            bias: None,
            scale: None,
            statistics: Statistics::Batch(Some(update)),
            record: true,
        })?;
        let Some(saved) = output.saved else { bail!(Internal, "nothing was saved") };
        Ok((output.y, cuda.norm_backward(&saved, &self.dy)?.dx))
    }
}

#[test]
fn a_replayed_pass_gives_the_bits_of_an_eager_one_on_new_values() {
    let Some(cuda) = device() else { return };
    // By cluster, cooperative, and with blocks that draw tickets.
    for (t, n, c, s) in [(2, 8, 2, 49), (1, 40, 1, 7), (2, 4, 12, 1)] {
        let grid = Grid { t, n, c, s };
        let (eager, captured) = (Pass::new(&cuda, grid), Pass::new(&cuda, grid));
        let (graph, (y, dx)) = cuda.capture(|| captured.run(&cuda)).unwrap();
        for round in 0..3 {
            let (expected_y, expected_dx) = eager.run(&cuda).unwrap();
            graph.replay().unwrap();
            for (what, got, expected) in [
                ("y", &y, &expected_y),
                ("dx", &dx, &expected_dx),
                ("mean", &captured.mean, &eager.mean),
                ("var", &captured.var, &eager.var),
                ("counters", &captured.counters, &eager.counters),
            ] {
                let same = cuda.download(got).unwrap() == cuda.download(expected).unwrap();
                assert!(same, "{what} of round {round} at {grid:?}");
            }
            for pass in [&eager, &captured] {
                let doubled = cuda.add(&pass.x, &pass.dy).unwrap();
                cuda.copy(&pass.x, &doubled).unwrap();
            }
        }
    }
}

#[test]
fn products_are_captured_and_keep_their_matrices() {
    let Some(cuda) = device() else { return };
    let spec = LinearSpec { in_features: 3, out_features: 2 };
    let x = tensor(&cuda, &[1.0, 2.0, 3.0]).reshape(&[1, 3]).unwrap();
    let weight = tensor(&cuda, &[1.0, 1.0, 1.0, 0.0, 0.0, 2.0]).reshape(&[2, 3]).unwrap();
    let call = |cuda: &Cuda, x: &CudaTensor, weight: &CudaTensor| {
        let call = LinearForward { spec: &spec, rows: 1, x, weight, bias: None, record: false };
        cuda.linear_forward(&call).map(|output| output.y)
    };
    // The first product starts cuBLAS, which is not here or may not be.
    match call(&cuda, &x, &weight) {
        Err(error) if error.code == ErrorCode::CudaUnavailable => return eprintln!("SKIPPED: {error}"),
        first => assert_eq!(values(&cuda, &first.unwrap()), [6.0, 6.0]),
    }
    let (graph, y) = cuda.capture(|| call(&cuda, &x, &weight)).unwrap();
    drop(weight);
    let _other: Vec<_> = (0..20).map(|_| tensor(&cuda, &[7.0; 6])).collect();
    for value in [6.0, 12.0, 24.0] {
        graph.replay().unwrap();
        assert_eq!(values(&cuda, &y), [value; 2]);
        cuda.accumulate(&x, &x).unwrap();
    }
}

#[test]
fn values_cannot_cross_while_a_graph_is_captured() {
    let Some(cuda) = device() else { return };
    let x = tensor(&cuda, &[1.0; 4]);
    let event = spikenorm_cuda::driver::Event::new(&cuda).unwrap();
    let idle = cuda.capture(|| Ok(())).unwrap().0;
    let (graph, y) = cuda
        .capture(|| {
            let errors = [
                cuda.upload(&[0; 4], &[1], DType::F32).err(),
                cuda.download(&x).err(),
                cuda.synchronize().err(),
                event.record().err(),
                cuda.capture(|| Ok(())).err(),
                idle.replay().err(),
                cuda.wait_for_stream(0).err(),
            ];
            for (index, error) in errors.into_iter().enumerate() {
                let error = error.unwrap_or_else(|| panic!("call {index} was allowed"));
                assert_eq!(error.code, ErrorCode::Cuda, "call {index}: {error}");
                assert!(error.message.contains("captured"), "call {index}: {error}");
            }
            assert!(cuda.is_capturing());
            cuda.add(&x, &x)
        })
        .unwrap();
    graph.replay().unwrap();
    assert_eq!(values(&cuda, &y), [2.0; 4]);
    assert!(!cuda.is_capturing());
}

#[test]
fn a_capture_that_fails_leaves_the_device_usable() {
    let Some(cuda) = device() else { return };
    let x = tensor(&cuda, &[1.0; 4]);
    let error = cuda
        .capture(|| -> Result<CudaTensor, Error> {
            let _y = cuda.add(&x, &x)?;
            bail!(Argument, "the closure's own error")
        })
        .err()
        .expect("the closure fails");
    assert_eq!(error, Error::new(ErrorCode::Argument, "the closure's own error"));
    assert_eq!(values(&cuda, &x), [1.0; 4]);
    let panicked =
        catch_unwind(AssertUnwindSafe(|| cuda.capture(|| -> Result<(), Error> { panic!("planned") })));
    assert!(panicked.is_err());
    assert!(!cuda.is_capturing());
    let y = cuda.add(&x, &x).unwrap();
    assert_eq!(values(&cuda, &y), [2.0; 4]);
    let graph = accumulate_one(&cuda, &x);
    graph.replay().unwrap();
    assert_eq!(values(&cuda, &x), [2.0; 4]);
}

#[test]
fn halves_of_a_capture_must_match() {
    let Some(cuda) = device() else { return };
    assert_eq!(cuda.end_capture().err().expect("no capture").code, ErrorCode::Cuda);
    cuda.cancel_capture();
    let x = tensor(&cuda, &[1.0; 4]);
    cuda.begin_capture().unwrap();
    let y = cuda.add(&x, &x).unwrap();
    cuda.cancel_capture();
    drop(y);
    assert_eq!(values(&cuda, &x), [1.0; 4]);
}

#[test]
fn other_threads_stay_out_of_a_capture() {
    let Some(cuda) = device() else { return };
    let x = tensor(&cuda, &[1.0; 4]);
    let elsewhere = tensor(&cuda, &[1.0; 4]);
    let (graph, y) = cuda
        .capture(|| {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let error = cuda.add(&x, &x).err().expect("another thread captures");
                    assert_eq!(error.code, ErrorCode::Cuda);
                    assert!(error.message.contains("another thread"), "{error}");
                    // Must not become part of the graph, which would free it at each replay.
                    drop(elsewhere);
                });
            });
            cuda.add(&x, &x)
        })
        .unwrap();
    for _ in 0..2 {
        graph.replay().unwrap();
        assert_eq!(values(&cuda, &y), [2.0; 4]);
    }
}

#[test]
fn graphs_go_between_threads() {
    fn assert_shared<T: Send + Sync>() {}
    assert_shared::<Graph>();
    let Some(cuda) = device() else { return };
    let x = tensor(&cuda, &[1.0; 4]);
    let graph = accumulate_one(&cuda, &x);
    std::thread::spawn(move || graph.replay().unwrap()).join().unwrap();
    assert_eq!(values(&cuda, &x), [2.0; 4]);
}

#[test]
fn a_thread_that_ends_in_a_capture_ends_it() {
    let Some(cuda) = device() else { return };
    let x = tensor(&cuda, &[1.0; 4]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            cuda.begin_capture().unwrap();
            let _y = cuda.add(&x, &x).unwrap();
            cancel_captures();
        });
    });
    assert_eq!(values(&cuda, &cuda.add(&x, &x).unwrap()), [2.0; 4]);
    // That of another thread stays.
    let (graph, y) = cuda
        .capture(|| {
            std::thread::scope(|scope| scope.spawn(cancel_captures).join().unwrap());
            cuda.add(&x, &x)
        })
        .unwrap();
    graph.replay().unwrap();
    assert_eq!(values(&cuda, &y), [2.0; 4]);
}

#[test]
fn captures_on_two_devices_nest() {
    let Some(cuda) = device() else { return };
    let Ok(other) = open(1) else { return };
    let (x, there) = (tensor(&cuda, &[1.0; 4]), tensor(&other, &[3.0; 4]));
    let (graph, ((inner, z), y)) = cuda
        .capture(|| {
            let inner = other.capture(|| other.add(&there, &there))?;
            Ok((inner, cuda.add(&x, &x)?))
        })
        .unwrap();
    inner.replay().unwrap();
    graph.replay().unwrap();
    assert_eq!((values(&cuda, &y), values(&other, &z)), (vec![2.0; 4], vec![6.0; 4]));
}
