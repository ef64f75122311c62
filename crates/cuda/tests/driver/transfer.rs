//! Copies between host and device whose memory on the host must outlast them, whatever fails and whoever captures.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use spikenorm_core::{DType, ErrorCode};

use crate::support::{Driver, emulated_device, in_process, tensor, values};

/// An allocation of the host beyond this goes back to the system when it is freed: a copy that comes too late is a
/// crash.
const UNMAPPED: usize = 40 << 20;
/// What an upload copies aside.
const STAGED: usize = 1 << 20;

#[test]
fn memory_of_the_host_outlasts_a_copy_whose_wait_fails() {
    in_process("transfer::wait_fails", &[]);
}

#[test]
#[ignore = "may crash its process; started by the test above"]
fn wait_fails() {
    let cuda = emulated_device().unwrap();
    let driver = Driver::new(&cuda);
    let long = cuda.upload(&vec![7; UNMAPPED], &[UNMAPPED], DType::U8).unwrap();
    // The wait alone, the wait and its repetition, what the copy's own call says of earlier work.
    for (function, failures) in
        [(c"cuStreamSynchronize", 1), (c"cuStreamSynchronize", 2), (c"cuMemcpyDtoHAsync_v2", 1)]
    {
        driver.fail(function, 1, 0, failures);
        let error = cuda.download(&long).expect_err("the driver fails");
        assert_eq!((error.code, driver.fail(c"", 0, 0, 0)), (ErrorCode::Cuda, 0), "{error}");
        cuda.synchronize().unwrap();
        assert!(cuda.download(&long).unwrap() == vec![7; UNMAPPED]);
    }
}

#[test]
fn memory_of_the_host_outlasts_an_upload_that_cannot_be_marked() {
    in_process("transfer::mark_fails", &[]);
}

#[test]
#[ignore = "may crash its process; started by the test above"]
fn mark_fails() {
    let cuda = emulated_device().unwrap();
    let driver = Driver::new(&cuda);
    for function in [c"cuEventCreate", c"cuEventRecord"] {
        let held: Vec<_> = (0..40)
            .map(|i| {
                driver.fail(function, 1, 0, 1);
                let uploaded = cuda.upload(&vec![i; STAGED], &[STAGED], DType::U8);
                assert_eq!(driver.fail(c"", 0, 0, 0), 0, "{function:?} is not called");
                uploaded
            })
            .collect();
        for (i, uploaded) in held.into_iter().enumerate() {
            let Ok(uploaded) = uploaded else { continue };
            assert!(cuda.download(&uploaded).unwrap() == vec![i as u8; STAGED]);
        }
        cuda.synchronize().unwrap();
    }
}

#[test]
fn the_end_of_a_capture_drops_nothing_that_is_on_its_way() {
    in_process("transfer::beside_captures", &[]);
}

#[test]
#[ignore = "may crash its process; started by the test above"]
fn beside_captures() {
    let cuda = emulated_device().unwrap();
    let cuda = &*cuda.cuda;
    let (x, y) = (tensor(cuda, &[1.0; 50_000]), tensor(cuda, &[0.0; 50_000]));
    let is_over = AtomicBool::new(false);
    let start = Barrier::new(3);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                start.wait();
                let (mut read, mut refused) = (0, 0);
                while !is_over.load(Ordering::SeqCst) || read == 0 {
                    match cuda.download(&x) {
                        Ok(bytes) => {
                            assert!(bytes.chunks_exact(4).all(|four| four == 1f32.to_ne_bytes()));
                            read += 1;
                        }
                        Err(error) => {
                            assert!(error.message.contains("another thread"), "{error}");
                            refused += 1;
                        }
                    }
                    if let Ok(up) = cuda.upload(&[9; 1000], &[1000], DType::U8) {
                        drop(up);
                    }
                }
                eprintln!("read {read} times, refused {refused} times");
            });
        }
        start.wait();
        for _ in 0..300 {
            let captured = cuda.capture(|| cuda.copy(&y, &x));
            if let Err(error) = captured {
                panic!("{error}");
            }
        }
        is_over.store(true, Ordering::SeqCst);
    });
    assert_eq!(values(cuda, &y)[0], 0.0);
}

#[test]
fn a_copy_between_devices_that_fails_keeps_its_source() {
    in_process("transfer::between_devices", &[]);
}

#[test]
#[ignore = "needs a driver whose calls fail; started by the test above"]
fn between_devices() {
    let cuda = emulated_device().unwrap();
    let other = spikenorm_cuda::driver::open(1).unwrap();
    let driver = Driver::new(&cuda);
    for passing in 0.. {
        let x = tensor(&cuda, &[5.0; 1000]);
        driver.fail(c"cuEventCreate cuEventRecord cuStreamWaitEvent cuMemcpyPeerAsync", 1, passing, 1);
        let received = other.receive(&x);
        let unmet = driver.fail(c"", 0, 0, 0);
        // Freed on its own stream, which may come to that before the copy has read it.
        drop(x);
        cuda.synchronize().unwrap();
        let again = tensor(&cuda, &[3.0; 1000]);
        other.synchronize().unwrap();
        assert_eq!(values(&cuda, &again), [3.0; 1000]);
        if unmet == 1 {
            assert_eq!(values(&other, &received.unwrap()), [5.0; 1000]);
            assert!(passing >= 5, "{passing} calls");
            return;
        }
        assert_eq!(received.err().expect("the driver fails").code, ErrorCode::Cuda);
    }
}
