//! Device memory: nothing is used after it has been freed, running out is an error like any other.

use spikenorm_core::{DType, ErrorCode, Result, bail};

use crate::support::{Driver, device, emulated_device, in_process, tensor, values};

#[test]
fn bytes_are_the_callers_again_when_upload_returns() {
    let Some(cuda) = device() else { return };
    // Below and above the size up to which they are copied aside.
    for count in [5, 1000, 300_000] {
        let mut numbers: Vec<f32> = (0..count).map(|i| i as f32).collect();
        let expected = numbers.clone();
        let x = tensor(&cuda, &numbers);
        numbers.fill(-1.0);
        drop(numbers);
        assert!(values(&cuda, &x) == expected, "{count} values");
    }
}

#[test]
fn tensors_may_be_dropped_while_what_uses_them_is_on_its_way() {
    let Some(cuda) = device() else { return };
    let mut sum = tensor(&cuda, &[1.0; 64]);
    for _ in 0..40 {
        let one = tensor(&cuda, &[1.0; 64]);
        sum = cuda.add(&sum, &one).unwrap();
    }
    assert_eq!(values(&cuda, &sum), [41.0; 64]);
}

#[test]
fn empty_tensors_have_memory_of_their_own() {
    let Some(cuda) = device() else { return };
    let (a, b) = (tensor(&cuda, &[]), cuda.empty(&[0, 3], DType::F16).unwrap());
    assert_ne!(a.memory.address(), b.memory.address());
    assert!(values(&cuda, &a).is_empty());
    assert_eq!(cuda.add(&a, &a).unwrap().len(), 0);
}

#[test]
fn statistics_count_what_is_held() {
    let Some(cuda) = device() else { return };
    cuda.synchronize().unwrap();
    cuda.reset_peak_memory();
    let before = cuda.memory_stats().unwrap();
    let big = cuda.empty(&[1 << 20], DType::F32).unwrap();
    let with = cuda.memory_stats().unwrap();
    assert_eq!(with.allocated, before.allocated + (4 << 20));
    drop(big);
    cuda.synchronize().unwrap();
    let after = cuda.memory_stats().unwrap();
    assert_eq!((after.allocated, after.peak), (before.allocated, with.allocated));
    assert!(after.reserved >= 4 << 20, "the pool gave the memory back: {after:?}");
    cuda.empty_cache().unwrap();
    let trimmed = cuda.memory_stats().unwrap();
    assert!(trimmed.reserved < after.reserved && trimmed.free > after.free, "{after:?} {trimmed:?}");
    cuda.reset_peak_memory();
    assert_eq!(cuda.memory_stats().unwrap().peak, before.allocated);
    assert!(trimmed.free <= trimmed.total);
}

#[test]
fn nothing_leaks() {
    let Some(cuda) = emulated_device() else { return };
    let driver = Driver::new(&cuda);
    let live = || {
        cuda.synchronize().unwrap();
        driver.live_allocations().unwrap()
    };
    let before = live();
    for _ in 0..3 {
        let x = tensor(&cuda, &[1.0; 100]);
        let (graph, y) = cuda.capture(|| cuda.add(&x, &x)).unwrap();
        graph.replay().unwrap();
        assert_eq!(values(&cuda, &y), [2.0; 100]);
        let failed = cuda.capture(|| -> Result<()> {
            cuda.add(&x, &y)?;
            bail!(Argument, "no")
        });
        assert!(failed.is_err());
    }
    assert_eq!(live(), before);
}

#[test]
fn out_of_memory_is_an_error_that_the_process_survives() {
    in_process("memory::out_of_memory", &[("SPIKENORM_EMULATED_MEMORY", "1000000")]);
}

#[test]
#[ignore = "needs a device with a million bytes; started by the test above"]
fn out_of_memory() {
    let cuda = emulated_device().unwrap();
    let held = cuda.empty(&[600_000], DType::U8).unwrap();
    let error = cuda.empty(&[500_000], DType::U8).err().expect("more than there is");
    assert_eq!(error.code, ErrorCode::OutOfMemory);
    for part in ["cuda:0", "488.3 KiB were asked for", "of 976.6 KiB are free", "585.9 KiB are in tensors"] {
        assert!(error.message.contains(part), "{part}: {}", error.message);
    }
    // What was there is unharmed, and what is freed can be had again.
    assert_eq!(values(&cuda, &tensor(&cuda, &[1.0, 2.0])), [1.0, 2.0]);
    drop(held);
    let again = cuda.empty(&[900_000], DType::U8).unwrap();
    drop(again);
    // The pool keeps those bytes; a graph needs them from the driver.
    let (graph, y) = cuda.capture(|| cuda.empty(&[400_000], DType::U8)).unwrap();
    drop((graph, y));
    let error = cuda.capture(|| cuda.empty(&[2_000_000], DType::U8)).err().expect("more than there is");
    assert_eq!(error.code, ErrorCode::OutOfMemory);
    assert_eq!(values(&cuda, &tensor(&cuda, &[3.0])), [3.0]);
}

#[test]
fn an_allocation_that_fails_is_tried_again() {
    in_process("memory::tried_again", &[("SPIKENORM_EMULATED_FAULT", "cuMemAllocAsync=2@2")]);
}

#[test]
#[ignore = "needs a driver whose second allocation fails; started by the test above"]
fn tried_again() {
    let cuda = emulated_device().unwrap();
    let tensors: Vec<_> = (0..4).map(|i| tensor(&cuda, &[i as f32])).collect();
    for (i, x) in tensors.iter().enumerate() {
        assert_eq!(values(&cuda, x), [i as f32]);
    }
}
