//! What can be wrong with a driver, and with what runs on it: an error each time, never a panic.

use spikenorm_core::{DType, ErrorCode};
use spikenorm_cuda::driver::{blas_report, driver_report, open, probe};

use crate::support::{Driver, emulated_device, in_process, tensor, values};

fn unavailable_with(variables: &[(&str, &str)], says: &str) {
    let mut all = variables.to_vec();
    all.push(("SPIKENORM_EXPECTED", says));
    in_process("faults::unavailable", &all);
}

#[test]
fn a_driver_that_cannot_be_used_says_why() {
    unavailable_with(&[("SPIKENORM_EMULATED_DEVICES", "0")], "CUDA_ERROR_NO_DEVICE");
    unavailable_with(&[("SPIKENORM_EMULATED_INIT_ERROR", "3")], "CUDA_ERROR_NOT_INITIALIZED");
    unavailable_with(&[("SPIKENORM_EMULATED_DRIVER", "12040")], "driver r580 or later");
}

#[test]
#[ignore = "needs a driver that cannot be used; started by the test above"]
fn unavailable() {
    let says = std::env::var("SPIKENORM_EXPECTED").unwrap();
    let error = probe().and_then(|_| open(0)).err().expect("CUDA cannot be used");
    assert_eq!(error.code, ErrorCode::CudaUnavailable);
    assert!(error.message.contains(&says), "{error}");
}

#[test]
fn a_report_tells_what_is_there_from_what_does_not_work() {
    let reported = |variables: &[(&str, &str)], says: &str| {
        in_process("faults::reported", &[variables, &[("SPIKENORM_EXPECTED", says)]].concat());
    };
    reported(&[], "Ready None Some([13, 0]) 2 devices; cuBLAS Some([13, 0, 2])");
    reported(&[("SPIKENORM_EMULATED_DRIVER", "12040")], "Ready None Some([12, 4]) 2 devices");
    reported(
        &[("SPIKENORM_EMULATED_DEVICES", "0")],
        "NoDevice Some(\"the NVIDIA driver does not start: DriverError(CUDA_ERROR_NO_DEVICE",
    );
    reported(&[("SPIKENORM_EMULATED_INIT_ERROR", "34")], "Absent Some(");
    reported(
        &[("SPIKENORM_EMULATED_INIT_ERROR", "999")],
        "Broken Some(\"the NVIDIA driver does not start: DriverError(CUDA_ERROR_UNKNOWN",
    );
    reported(
        &[("SPIKENORM_CUBLAS", "/nowhere/libcublas.so")],
        "SPIKENORM_CUBLAS=/nowhere/libcublas.so does not load",
    );
}

#[test]
#[ignore = "needs what the test above, which starts it, sets"]
fn reported() {
    let report = driver_report();
    let blas = blas_report().map_or_else(|error| error.message, |blas| format!("{:?}", blas.version));
    let devices = report.devices.len();
    let all =
        format!("{:?} {:?} {:?} {devices} devices; cuBLAS {blas}", report.state, report.problem, report.cuda);
    assert!(all.contains(&std::env::var("SPIKENORM_EXPECTED").unwrap()), "{all}");
}

#[test]
fn a_launch_that_is_refused_is_an_error_of_that_call_alone() {
    in_process("faults::refused", &[("SPIKENORM_EMULATED_FAULT", "cuLaunchKernelEx=1@2")]);
}

#[test]
#[ignore = "needs a driver whose second launch fails; started by the test above"]
fn refused() {
    let cuda = emulated_device().unwrap();
    let x = tensor(&cuda, &[1.0; 4]);
    cuda.accumulate(&x, &x).unwrap();
    let error = cuda.accumulate(&x, &x).expect_err("the driver refuses it");
    assert_eq!(error.code, ErrorCode::Cuda);
    assert!(error.message.contains("CUDA_ERROR_INVALID_VALUE"), "{error}");
    assert_eq!(values(&cuda, &x), [2.0; 4]);
}

#[test]
fn a_kernel_that_fails_is_reported_from_then_on() {
    in_process("faults::failed", &[]);
}

#[test]
#[ignore = "spoils the context of its process; started by the test above"]
fn failed() {
    let cuda = emulated_device().unwrap();
    let driver = Driver::new(&cuda);
    let address = driver.allocate(64);
    let x = cuda.external(address, &[16], DType::F32, Box::new(())).unwrap();
    assert_eq!(driver.free(address), 0);
    let y = cuda.add(&x, &x).unwrap();
    for _ in 0..2 {
        let error = cuda.download(&y).expect_err("the memory is gone");
        assert_eq!(error.code, ErrorCode::Cuda);
        assert!(error.message.contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{error}");
        assert!(error.message.contains("start the process again"), "{error}");
    }
    assert_eq!(cuda.empty(&[4], DType::F32).err().expect("the context is lost").code, ErrorCode::Cuda);
    assert!(cuda.capture(|| Ok(())).is_err());
}
