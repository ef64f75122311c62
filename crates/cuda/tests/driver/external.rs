//! Memory and streams of others in the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use spikenorm_core::{DType, ErrorCode};
use spikenorm_cuda::driver::open;

use crate::support::{Driver, device, emulated_device, tensor, values};

/// Says that it has been dropped.
struct Owner(Arc<AtomicBool>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

const THREE: u32 = 0x4040_0000;

#[test]
fn values_of_another_stream_are_waited_for_and_those_of_ours_by_it() {
    let Some(cuda) = device() else { return };
    let driver = Driver::new(&cuda);
    let (address, stream) = (driver.allocate(64), driver.stream());
    driver.fill(address, THREE, 16, stream);
    cuda.wait_for_stream(stream).unwrap();
    let x = cuda.external(address, &[16], DType::F32, Box::new(())).unwrap();
    assert_eq!((x.memory.address(), x.memory.bytes()), (address, 64));
    let y = cuda.add(&x, &x).unwrap();
    assert_eq!(values(&cuda, &y), [6.0; 16]);
    cuda.accumulate(&x, &y).unwrap();
    cuda.let_stream_wait(stream).unwrap();
    let mut seen = [0.0; 16];
    driver.copy_out(address, &mut seen, stream);
    assert_eq!(seen, [9.0; 16]);
    drop(x);
    assert_eq!(driver.free(address), 0);
}

#[test]
fn the_owner_is_let_go_when_nothing_uses_the_memory_any_more() {
    let Some(cuda) = device() else { return };
    let driver = Driver::new(&cuda);
    let address = driver.allocate(64);
    let gone = Arc::new(AtomicBool::new(false));
    driver.fill(address, THREE, 16, 0);
    cuda.wait_for_stream(0).unwrap();
    let x = cuda.external(address, &[16], DType::F32, Box::new(Owner(Arc::clone(&gone)))).unwrap();
    let total = tensor(&cuda, &[0.0; 16]);
    let twice = cuda.add(&x, &x).unwrap();
    let (graph, ()) = cuda.capture(|| cuda.accumulate(&total, &x)).unwrap();
    drop(x);
    cuda.synchronize().unwrap();
    assert!(!gone.load(Ordering::SeqCst), "the graph uses it");
    graph.replay().unwrap();
    assert_eq!(values(&cuda, &total), [3.0; 16]);
    drop(graph);
    cuda.synchronize().unwrap();
    assert!(gone.load(Ordering::SeqCst), "nothing uses it any more");
    assert_eq!(values(&cuda, &twice), [6.0; 16]);
    assert_eq!(driver.free(address), 0);
}

#[test]
fn the_owner_is_not_let_go_before_the_stream_has_passed() {
    let Some(cuda) = emulated_device() else { return };
    let driver = Driver::new(&cuda);
    let address = driver.allocate(64);
    let gone = Arc::new(AtomicBool::new(false));
    let x = cuda.external(address, &[16], DType::F32, Box::new(Owner(Arc::clone(&gone)))).unwrap();
    for _ in 0..20 {
        cuda.accumulate(&x, &x).unwrap();
    }
    drop(x);
    assert!(!gone.load(Ordering::SeqCst), "the stream uses it");
    cuda.synchronize().unwrap();
    assert!(gone.load(Ordering::SeqCst), "nothing uses it any more");
    assert_eq!(driver.free(address), 0);
}

#[test]
fn pointers_are_looked_at() {
    let Some(cuda) = device() else { return };
    let driver = Driver::new(&cuda);
    let address = driver.allocate(64);
    let host = [0f32; 16];
    let made = |address: u64, count: usize, dtype| {
        cuda.external(address, &[count], dtype, Box::new(())).err().map(|error| (error.code, error.message))
    };
    assert_eq!(made(address, 16, DType::F32), None);
    assert_eq!(made(address + 32, 8, DType::F32), None);
    assert_eq!(made(0, 0, DType::F32), None);
    for (address, count, says) in [
        (host.as_ptr() as u64, 16, "CUDA memory"),
        (0, 1, "CUDA memory"),
        (address, 17, "its allocation ends after 64"),
        (address + 32, 9, "its allocation ends after 32"),
        (address + 2, 1, "multiple of 4"),
    ] {
        let (code, message) = made(address, count, DType::F32).expect(says);
        assert_eq!(code, ErrorCode::Argument, "{message}");
        assert!(message.contains(says), "{message}");
    }
    if let Ok(other) = open(1) {
        let theirs = tensor(&other, &[1.0]);
        let (code, message) = made(theirs.memory.address(), 1, DType::F32).expect("another device");
        assert_eq!(code, ErrorCode::Device, "{message}");
        assert!(message.contains("cuda:1"), "{message}");
        // Opening it has bound its context here.
        cuda.synchronize().unwrap();
    }
    assert_eq!(driver.free(address), 0);
}

#[test]
fn a_graph_keeps_memory_that_others_have_looked_at() {
    let Some(cuda) = device() else { return };
    let looks = |x: &crate::support::CudaTensor| {
        cuda.external(x.memory.address(), &[x.len()], DType::F32, Box::new(())).unwrap()
    };
    let (target, source) = (tensor(&cuda, &[0.0; 100]), tensor(&cuda, &[1.0; 100]));
    // One that has gone before the capture, two that go after it, at the same address and within.
    drop(looks(&target));
    let views = [looks(&source), looks(&source).rows(50, 50)];
    let (graph, ()) = cuda.capture(|| cuda.accumulate(&target, &source)).unwrap();
    let address = target.memory.address();
    drop((target, source, views));
    cuda.synchronize().unwrap();
    let _other: Vec<_> = (0..20).map(|_| tensor(&cuda, &[7.0; 100])).collect();
    graph.replay().unwrap();
    graph.replay().unwrap();
    let seen = cuda.external(address, &[100], DType::F32, Box::new(())).unwrap();
    drop(graph);
    assert_eq!(values(&cuda, &seen), [2.0; 100]);
}

#[test]
fn a_graph_keeps_every_owner_of_memory_that_overlaps() {
    let Some(cuda) = device() else { return };
    let driver = Driver::new(&cuda);
    let address = driver.allocate(64);
    driver.fill(address, THREE, 16, 0);
    cuda.wait_for_stream(0).unwrap();
    let gone: Vec<_> = (0..3).map(|_| Arc::new(AtomicBool::new(false))).collect();
    let over = |index: usize, offset: u64, count: usize| {
        let owner = Box::new(Owner(Arc::clone(&gone[index])));
        cuda.external(address + 4 * offset, &[count], DType::F32, owner).unwrap()
    };
    // The same memory, and the same start with another end.
    let externals = [over(0, 0, 16), over(1, 0, 16), over(2, 0, 4)];
    let total = tensor(&cuda, &[0.0; 16]);
    let (graph, ()) = cuda.capture(|| cuda.accumulate(&total, &externals[1])).unwrap();
    drop(externals);
    cuda.synchronize().unwrap();
    let let_go = || gone.iter().map(|gone| gone.load(Ordering::SeqCst)).collect::<Vec<_>>();
    assert!(let_go().iter().all(|gone| !gone), "the graph uses it");
    graph.replay().unwrap();
    assert_eq!(values(&cuda, &total), [3.0; 16]);
    drop(graph);
    cuda.synchronize().unwrap();
    assert!(let_go().iter().all(|&gone| gone), "nothing uses it any more");
    assert_eq!(driver.free(address), 0);
}

#[test]
fn memory_of_ours_stays_while_others_look_at_it() {
    let Some(cuda) = device() else { return };
    let x = tensor(&cuda, &[1.0, 2.0, 3.0, 4.0]);
    let address = x.memory.address();
    let made = |count: usize| cuda.external(address + 4, &[count], DType::F32, Box::new(()));
    let view = made(3).unwrap();
    let error = made(4).err().expect("more than there is");
    assert_eq!(error.code, ErrorCode::Argument, "{error}");
    drop(x);
    let _other: Vec<_> = (0..20).map(|_| tensor(&cuda, &[7.0; 4])).collect();
    assert_eq!(values(&cuda, &view), [2.0, 3.0, 4.0]);
    // In a capture, the graph's own memory.
    let (graph, (y, view)) = cuda
        .capture(|| {
            let y = cuda.add(&view, &view)?;
            let view = cuda.external(y.memory.address(), &[3], DType::F32, Box::new(()))?;
            Ok((y, view))
        })
        .unwrap();
    drop(y);
    graph.replay().unwrap();
    drop(graph);
    assert_eq!(values(&cuda, &view), [4.0, 6.0, 8.0]);
}

#[test]
fn values_that_overlap_by_address_are_read_before_they_are_written() {
    let Some(cuda) = device() else { return };
    let x = tensor(&cuda, &(0..64).map(|i| i as f32).collect::<Vec<_>>());
    let over = |offset: u64| {
        cuda.external(x.memory.address() + 4 * offset, &[60], DType::F32, Box::new(())).unwrap()
    };
    cuda.accumulate(&over(3), &over(1)).unwrap();
    let expected: Vec<f32> =
        (0..64).map(|i| if (3..63).contains(&i) { (i + i - 2) as f32 } else { i as f32 }).collect();
    assert_eq!(values(&cuda, &x), expected);
}
