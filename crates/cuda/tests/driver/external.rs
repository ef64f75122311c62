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
