//! Several devices in one process.

use std::sync::Arc;

use spikenorm_core::ErrorCode;
use spikenorm_cuda::driver::{Event, devices, open};

use crate::support::{device, in_process, tensor, values};

#[test]
fn a_device_is_opened_once() {
    let Some(cuda) = device() else { return };
    assert!(Arc::ptr_eq(&cuda.cuda, &open(0).unwrap()));
    let other = std::thread::spawn(|| open(0).unwrap()).join().unwrap();
    assert!(Arc::ptr_eq(&cuda.cuda, &other));
}

#[test]
fn devices_are_listed_as_the_driver_knows_them() {
    let Some(cuda) = device() else { return };
    let list = devices().unwrap();
    for (index, device) in list.iter().enumerate() {
        assert_eq!(device.index, index);
        assert!(device.memory > 0 && device.compute_capability[0] >= 7, "{device:?}");
    }
    assert_eq!(list[0].name, cuda.name().unwrap());
    let error = open(list.len()).err().expect("no such device");
    assert_eq!(error.code, ErrorCode::Device);
    assert!(error.message.contains(&format!("got cuda:{}", list.len())), "{error}");
}

#[test]
fn values_go_from_device_to_device() {
    let Some(cuda) = device() else { return };
    let Ok(other) = open(1) else { return eprintln!("SKIPPED: there is one device") };
    let mut x = tensor(&cuda, &[1.0; 32]);
    x = cuda.add(&x, &x).unwrap();
    let there = other.receive(&x.rows(8, 16)).unwrap();
    assert_eq!((x.memory.ordinal(), there.memory.ordinal()), (0, 1));
    // Neither freeing nor overwriting the source reaches the copy on its way.
    cuda.fill(&x, -1.0).unwrap();
    drop(x);
    let sum = other.add(&there, &there).unwrap();
    let back = cuda.receive(&sum).unwrap();
    drop((there, sum));
    assert_eq!(values(&cuda, &back), [4.0; 16]);
    let here = cuda.receive(&back).unwrap();
    assert_ne!(here.memory.address(), back.memory.address());
    assert_eq!(values(&cuda, &here), [4.0; 16]);
    let (a, b) = (Event::new(&cuda).unwrap(), Event::new(&other).unwrap());
    assert_eq!(a.elapsed_ms(&b).expect_err("two devices").code, ErrorCode::Device);
}

#[test]
fn a_device_that_failed_to_open_is_tried_again() {
    in_process("devices::opened_again", &[("SPIKENORM_EMULATED_FAULT", "cuDevicePrimaryCtxRetain=999@1")]);
}

#[test]
#[ignore = "needs a driver whose first context fails; started by the test above"]
fn opened_again() {
    assert_eq!(open(0).err().expect("the driver fails").code, ErrorCode::Cuda);
    assert_eq!(values(&open(0).unwrap(), &tensor(&open(0).unwrap(), &[1.0])), [1.0]);
}
