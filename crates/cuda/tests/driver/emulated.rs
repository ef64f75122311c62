//! Does the emulated driver find what it is there to find? Launches that the launcher would never make.

use std::ffi::c_void;

use cudarc::driver::sys::{self, CUresult};
use cudarc::driver::{CudaContext, CudaFunction, result};
use cudarc::nvrtc::Ptx;
use spikenorm_core::DType;
use spikenorm_cuda::fatbin;
use spikenorm_cuda::kit::{Operand, elementwise};
use spikenorm_cuda::launches::Launch;

use crate::support::{Turn, emulated_device, in_process};

struct Shape {
    blocks: u32,
    threads: u32,
    shared: u32,
    cluster: u32,
    cooperative: bool,
}

const ONE_BLOCK: Shape = Shape { blocks: 1, threads: 512, shared: 0, cluster: 1, cooperative: false };

fn kernel(name: &str) -> CudaFunction {
    let context = CudaContext::new(0).unwrap();
    let module = context.load_module(Ptx::from_binary(fatbin::kernels().unwrap().to_vec())).unwrap();
    module.load_function(name).unwrap()
}

fn attribute(id: sys::CUlaunchAttributeID, words: [u32; 3]) -> sys::CUlaunchAttribute {
    let mut value = sys::CUlaunchAttributeValue { pad: [0; 64] };
    value.clusterDim =
        sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: words[0], y: words[1], z: words[2] };
    sys::CUlaunchAttribute { id, pad: [0; 4], value }
}

/// Launches on the context's own stream.
fn launch<P>(function: &CudaFunction, shape: &Shape, mut params: P) -> CUresult {
    let mut attributes = vec![attribute(
        sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
        [shape.cluster, 1, 1],
    )];
    if shape.cooperative {
        attributes.push(attribute(sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_COOPERATIVE, [1, 0, 0]));
    }
    let config = sys::CUlaunchConfig {
        gridDimX: shape.blocks,
        gridDimY: 1,
        gridDimZ: 1,
        blockDimX: shape.threads,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: shape.shared,
        hStream: std::ptr::null_mut(),
        attrs: attributes.as_mut_ptr(),
        numAttrs: attributes.len() as u32,
    };
    let mut arguments: [*mut c_void; 1] = [(&raw mut params).cast()];
    // SAFETY: the kernel takes one struct of this type, or the launch is refused before it is read; what it
    // points at is the test's business: the emulated driver is to find that out.
    unsafe {
        sys::cuLaunchKernelEx(
            &raw const config,
            function.cu_function(),
            arguments.as_mut_ptr(),
            std::ptr::null_mut(),
        )
    }
}

#[test]
fn launches_that_no_device_takes_are_refused() {
    let Some(_device) = emulated_device() else { return };
    let function = kernel("fill_f32");
    let refused = |shape: Shape| launch(&function, &shape, [0u64; 7]);
    assert_eq!(refused(Shape { blocks: 0, ..ONE_BLOCK }), CUresult::CUDA_ERROR_INVALID_VALUE);
    assert_eq!(refused(Shape { threads: 1056, ..ONE_BLOCK }), CUresult::CUDA_ERROR_INVALID_VALUE);
    assert_eq!(refused(Shape { threads: 1024, ..ONE_BLOCK }), CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
    assert_eq!(refused(Shape { shared: 49_156, ..ONE_BLOCK }), CUresult::CUDA_ERROR_INVALID_VALUE);
    let most = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    assert!(function.set_attribute(most, 232_449).is_err());
    function.set_attribute(most, 232_448).unwrap();
    assert_eq!(refused(Shape { shared: 232_449, ..ONE_BLOCK }), CUresult::CUDA_ERROR_INVALID_VALUE);
    for (blocks, cluster) in [(3, 2), (16, 16)] {
        let shape = Shape { blocks, cluster, ..ONE_BLOCK };
        assert_eq!(refused(shape), CUresult::CUDA_ERROR_INVALID_CLUSTER_SIZE);
    }
    // Two blocks on each of 132 multiprocessors, or one where each takes all the shared memory.
    for (blocks, shared) in [(265, 0), (133, 232_448)] {
        let shape = Shape { blocks, shared, cooperative: true, ..ONE_BLOCK };
        assert_eq!(refused(shape), CUresult::CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
    }
    let accepted = Shape { shared: 232_448, blocks: 132, threads: 32, cooperative: true, ..ONE_BLOCK };
    assert_eq!(refused(accepted), CUresult::CUDA_SUCCESS);
    result::ctx::synchronize().unwrap();
}

/// A launch that fills `count` numbers from an address on, and the kernel: unloading it waits.
fn fill(device: &Turn, address: u64, count: usize) -> (CUresult, CudaFunction) {
    let Launch { kernel: name, params, blocks, threads, .. } =
        elementwise::fill(Operand::new(address, DType::F32), count, 1.0, device.limits()).unwrap();
    let shape = Shape { blocks: blocks as u32, threads: threads as u32, ..ONE_BLOCK };
    let function = kernel(&name);
    (launch(&function, &shape, params), function)
}

#[test]
fn a_write_past_the_end_of_memory_is_found() {
    in_process("emulated::past_the_end", &[]);
}

#[test]
#[ignore = "spoils the context of its process; started by the test above"]
fn past_the_end() {
    let device = emulated_device().unwrap();
    for (count, fails) in [(100, false), (101, true)] {
        let memory = device.empty(&[100], DType::F32).unwrap();
        device.synchronize().unwrap();
        let (code, _kernel) = fill(&device, memory.memory.address(), count);
        assert_eq!(code, CUresult::CUDA_SUCCESS);
        result::ctx::synchronize().unwrap();
        drop(memory);
        let error = device.synchronize().err();
        assert_eq!(error.is_some(), fails, "{count}: {error:?}");
    }
}

#[test]
fn a_kernel_on_the_memory_of_another_device_is_found() {
    in_process("emulated::another_device", &[]);
}

#[test]
#[ignore = "spoils the context of its process; started by the test above"]
fn another_device() {
    let device = emulated_device().unwrap();
    let theirs = spikenorm_cuda::driver::open(1).unwrap().empty(&[100], DType::F32).unwrap();
    device.synchronize().unwrap();
    let (code, _kernel) = fill(&device, theirs.memory.address(), 100);
    assert_eq!(code, CUresult::CUDA_SUCCESS);
    assert_eq!(
        result::ctx::synchronize().err().map(|error| error.0),
        Some(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS)
    );
}

#[test]
fn nothing_runs_before_it_is_waited_for() {
    let Some(device) = emulated_device() else { return };
    let memory = device.empty(&[100], DType::F32).unwrap();
    device.synchronize().unwrap();
    let address = memory.memory.address();
    let (code, _kernel) = fill(&device, address, 100);
    assert_eq!(code, CUresult::CUDA_SUCCESS);
    // SAFETY: the memory of the emulated driver is the host's.
    let first = || unsafe { (address as *const u32).read_volatile() };
    assert_eq!(first(), u32::MAX);
    result::ctx::synchronize().unwrap();
    assert_eq!(f32::from_bits(first()), 1.0);
}
