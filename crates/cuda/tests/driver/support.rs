//! The device of these tests, values on it, and tests that need a process with another environment.

use std::ffi::{CStr, c_char, c_void};
use std::ops::Deref;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libloading::Library;
use spikenorm_core::{DType, Tensor};
use spikenorm_cuda::driver::{Cuda, DeviceMemory, open, probe};

pub type CudaTensor = Tensor<DeviceMemory>;

/// Device 0, for one test at a time: a capture keeps other threads off the device.
pub struct Turn {
    pub cuda: Arc<Cuda>,
    _turn: MutexGuard<'static, ()>,
}

impl Deref for Turn {
    type Target = Cuda;

    fn deref(&self) -> &Cuda {
        &self.cuda
    }
}

pub fn device() -> Option<Turn> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    match probe() {
        Ok(_) => Some(Turn { cuda: open(0).unwrap(), _turn: turn }),
        Err(reason) => {
            eprintln!("SKIPPED: {reason}");
            None
        }
    }
}

/// The same, where faults can be asked for.
pub fn emulated_device() -> Option<Turn> {
    let turn = device()?;
    if turn.name().unwrap().contains("emulated") {
        return Some(turn);
    }
    eprintln!("SKIPPED: this is about the emulated driver, and there is a real one");
    None
}

pub fn tensor(cuda: &Cuda, values: &[f32]) -> CudaTensor {
    cuda.upload(bytemuck::cast_slice(values), &[values.len()], DType::F32).unwrap()
}

pub fn values(cuda: &Cuda, x: &CudaTensor) -> Vec<f32> {
    let bytes = cuda.download(x).unwrap();
    bytes.chunks_exact(4).map(|four| f32::from_ne_bytes(four.try_into().unwrap())).collect()
}

/// The driver itself, as another library of the process would use it.
pub struct Driver(Library);

impl Driver {
    /// In the context of `cuda`, which is bound to this thread.
    pub fn new(cuda: &Cuda) -> Self {
        cuda.synchronize().unwrap();
        // SAFETY: the driver is loaded already; its initialisers have run.
        Self(unsafe { Library::new(if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" }) }.unwrap())
    }

    fn call<F: Copy>(&self, name: &str) -> F {
        // SAFETY: each caller below names a function of cuda.h with its signature.
        *unsafe { self.0.get::<F>(name) }.unwrap()
    }

    /// Allocations that nobody has freed; only the emulated driver counts them.
    pub fn live_allocations(&self) -> Option<u64> {
        // SAFETY: takes nothing and returns a number, in emulation/driver/memory.cpp.
        let count =
            unsafe { self.0.get::<unsafe extern "C" fn() -> u64>("spikenorm_emulated_live_allocations") };
        // SAFETY: as above.
        count.ok().map(|count| unsafe { count() })
    }

    /// Lets `count` calls fail of the functions named, once `passing` calls of any of them have passed; returns how
    /// many failures asked for before have not been met. Only the emulated driver can.
    pub fn fail(&self, functions: &CStr, code: i32, passing: u64, count: u64) -> u64 {
        let call: unsafe extern "C" fn(*const c_char, i32, u64, u64) -> u64 =
            self.call("spikenorm_emulated_fail");
        // SAFETY: the names end in zero and are read before it returns.
        unsafe { call(functions.as_ptr(), code, passing, count) }
    }

    pub fn allocate(&self, bytes: usize) -> u64 {
        let mut address = 0;
        let call: unsafe extern "C" fn(*mut u64, usize) -> i32 = self.call("cuMemAlloc_v2");
        // SAFETY: a context is bound, since `new`.
        assert_eq!(unsafe { call(&raw mut address, bytes) }, 0);
        address
    }

    pub fn free(&self, address: u64) -> i32 {
        let call: unsafe extern "C" fn(u64) -> i32 = self.call("cuMemFree_v2");
        // SAFETY: the test allocated it.
        unsafe { call(address) }
    }

    /// A stream that takes turns with no other.
    pub fn stream(&self) -> u64 {
        let mut stream = std::ptr::null_mut::<c_void>();
        let call: unsafe extern "C" fn(*mut *mut c_void, u32) -> i32 = self.call("cuStreamCreate");
        // SAFETY: as for `allocate`.
        assert_eq!(unsafe { call(&raw mut stream, 1) }, 0);
        stream as u64
    }

    pub fn fill(&self, address: u64, word: u32, words: usize, stream: u64) {
        let call: unsafe extern "C" fn(u64, u32, usize, *mut c_void) -> i32 = self.call("cuMemsetD32Async");
        // SAFETY: the memory has that many words, the stream is alive.
        assert_eq!(unsafe { call(address, word, words, stream as *mut c_void) }, 0);
    }

    pub fn copy_out(&self, address: u64, into: &mut [f32], stream: u64) {
        let copy: unsafe extern "C" fn(*mut c_void, u64, usize, *mut c_void) -> i32 =
            self.call("cuMemcpyDtoHAsync_v2");
        let wait: unsafe extern "C" fn(*mut c_void) -> i32 = self.call("cuStreamSynchronize");
        let stream = stream as *mut c_void;
        // SAFETY: both have that many bytes, and `into` outlives the wait.
        let codes =
            unsafe { (copy(into.as_mut_ptr().cast(), address, 4 * into.len(), stream), wait(stream)) };
        assert_eq!(codes, (0, 0));
    }
}

/// Runs an ignored test of this file's binary in a process of its own, and expects it to succeed.
pub fn in_process(test: &str, variables: &[(&str, &str)]) {
    if let Err(reason) = probe() {
        return eprintln!("SKIPPED: {reason}");
    }
    if emulated_device().is_none() {
        return;
    }
    let run = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let output = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success() && output.contains("1 passed"), "{test} {variables:?}\n{output}");
}
