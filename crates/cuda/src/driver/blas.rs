//! Matrix products by cuBLAS, which is loaded when the first product is asked for: neither building nor
//! normalising needs it.

use std::env;
use std::ffi::{CStr, OsString, c_char, c_int, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaStream, result};
use libloading::Library;
use spikenorm_core::{DType, Error, ErrorCode, Result, bail};

use super::Cuda;
use super::stream::Stream;
use crate::kit::{Matrix, Product};

/// Names a file to load instead of the [`LIBRARIES`].
const LIBRARY_VARIABLE: &str = "SPIKENORM_CUBLAS";
/// Newest first: each works with every driver that loads it.
const LIBRARIES: &[&str] = if cfg!(windows) {
    &["cublas64_13.dll", "cublas64_12.dll"]
} else {
    &["libcublas.so.13", "libcublas.so.12", "libcublas.so"]
};
/// What NVIDIA advises for sm_90, the greediest architecture. A workspace of our own makes products
/// repeatable and capturable: cuBLAS would allocate one whenever it likes.
const WORKSPACE_BYTES: usize = 32 << 20;

// Numbers of cublas_api.h and library_types.h.
const STATUS_ALLOC_FAILED: c_int = 3;
const OP_N: c_int = 0;
const OP_T: c_int = 1;
const R_32F: c_int = 0;
const R_64F: c_int = 1;
/// float32 throughout: not TF32, whose products keep 10 bits.
const COMPUTE_32F: c_int = 68;
const COMPUTE_64F: c_int = 70;
const GEMM_DEFAULT: c_int = -1;

type RawHandle = *mut c_void;
type Create = unsafe extern "C" fn(*mut RawHandle) -> c_int;
type Destroy = unsafe extern "C" fn(RawHandle) -> c_int;
type SetStream = unsafe extern "C" fn(RawHandle, *mut c_void) -> c_int;
type SetWorkspace = unsafe extern "C" fn(RawHandle, *mut c_void, usize) -> c_int;
type StatusString = unsafe extern "C" fn(c_int) -> *const c_char;
type GetProperty = unsafe extern "C" fn(c_int, *mut c_int) -> c_int;
type GemmEx = unsafe extern "C" fn(
    RawHandle,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    *const c_void,
    *const c_void,
    c_int,
    c_int,
    *const c_void,
    c_int,
    c_int,
    *const c_void,
    *mut c_void,
    c_int,
    c_int,
    c_int,
    c_int,
) -> c_int;

/// The functions used, and the library that keeps them in memory.
struct Api {
    create: Create,
    destroy: Destroy,
    set_stream: SetStream,
    set_workspace: SetWorkspace,
    gemm: GemmEx,
    /// Younger than the others.
    status_string: Option<StatusString>,
    /// As it was asked for.
    name: String,
    library: Library,
}

impl Api {
    fn load() -> Result<Self> {
        let given = env::var_os(LIBRARY_VARIABLE).filter(|path| !path.is_empty());
        let candidates: Vec<OsString> = match &given {
            Some(path) => vec![path.clone()],
            None => LIBRARIES.iter().map(OsString::from).collect(),
        };
        let mut reasons = Vec::new();
        for name in &candidates {
            // SAFETY: the file is cuBLAS by its name, or what the user says is cuBLAS; its initialisers are
            // NVIDIA's.
            match unsafe { Library::new(name) } {
                Ok(library) => return Self::of(library, &name.to_string_lossy()),
                Err(error) => reasons.push(error.to_string()),
            }
        }
        let looked_for = match &given {
            Some(path) => format!("{LIBRARY_VARIABLE}={} does not load", path.to_string_lossy()),
            None => format!("found none of {}", LIBRARIES.join(", ")),
        };
        Err(unavailable(format!(
            "{looked_for} ({}); install the CUDA toolkit or the PyPI package nvidia-cublas, and set \
             {LIBRARY_VARIABLE} to the library's path where the loader does not search",
            reasons.join("; ")
        )))
    }

    fn of(library: Library, name: &str) -> Result<Self> {
        fn symbol<T: Copy>(library: &Library, name: &str, symbol: &str) -> Result<T> {
            // SAFETY: each caller below names a function whose signature in cublas_api.h, the same in CUDA 12
            // and 13, is the type asked for.
            let found = unsafe { library.get::<T>(symbol) };
            found.map(|found| *found).map_err(|error| unavailable(format!("{name} has no {symbol}: {error}")))
        }
        Ok(Self {
            create: symbol(&library, name, "cublasCreate_v2")?,
            destroy: symbol(&library, name, "cublasDestroy_v2")?,
            set_stream: symbol(&library, name, "cublasSetStream_v2")?,
            set_workspace: symbol(&library, name, "cublasSetWorkspace_v2")?,
            gemm: symbol(&library, name, "cublasGemmEx")?,
            status_string: symbol(&library, name, "cublasGetStatusString").ok(),
            name: name.into(),
            library,
        })
    }

    fn check(&self, what: &str, status: c_int) -> Result<()> {
        let code = match status {
            0 => return Ok(()),
            STATUS_ALLOC_FAILED => ErrorCode::OutOfMemory,
            _ => ErrorCode::Cuda,
        };
        // SAFETY: takes any number, and gives a constant string or null.
        let text = self.status_string.map(|text| unsafe { text(status) }).filter(|text| !text.is_null());
        // SAFETY: not null, so a string that ends in zero and stays where it is while the library is loaded.
        let text = text.map(|text| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned());
        let text = text.unwrap_or_default();
        Err(Error::new(code, format!("CUDA: cuBLAS: {what}: status {status} {text}").trim_end()))
    }
}

/// The cuBLAS that products would use.
#[derive(Debug)]
pub struct BlasReport {
    /// What it was loaded by: the name of a file, or the path that `SPIKENORM_CUBLAS` gives.
    pub name: String,
    pub version: Option<[i32; 3]>,
}

/// Loads cuBLAS and asks for its version; needs no device.
pub fn blas_report() -> Result<BlasReport> {
    let Api { name, library, .. } = Api::load()?;
    let version = version(&library);
    // It stays loaded, so that the process can be asked which file that was.
    std::mem::forget(library);
    Ok(BlasReport { name, version })
}

fn version(library: &Library) -> Option<[i32; 3]> {
    // SAFETY: the signature of cublas_api.h, the same in CUDA 12 and 13.
    let property = unsafe { library.get::<GetProperty>("cublasGetProperty") }.ok()?;
    let mut version = [0; 3];
    for (which, number) in version.iter_mut().enumerate() {
        // SAFETY: the number is there to be written to; 0 to 2 ask for major, minor and patch level.
        if unsafe { property(which as c_int, number) } != 0 {
            return None;
        }
    }
    Some(version)
}

fn unavailable(message: String) -> Error {
    Error::new(ErrorCode::CudaUnavailable, format!("CUDA: cuBLAS: {message}"))
}

/// Memory that belongs to no stream and no graph: it stays for as long as the handle.
struct Workspace {
    address: u64,
    stream: Arc<CudaStream>,
}

impl Workspace {
    fn new(stream: &Stream) -> Result<Self> {
        // SAFETY: the context is bound, and the size is not zero.
        let ask = || unsafe { result::malloc_sync(WORKSPACE_BYTES) };
        let address = stream.ask_again("allocating the workspace of cuBLAS", WORKSPACE_BYTES, ask)?;
        Ok(Self { address, stream: Arc::clone(stream.raw()) })
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // What was launched may still use it. Failures mean that the context is gone, and the memory with it.
        if self.stream.context().bind_to_thread().is_ok() && self.stream.synchronize().is_ok() {
            // SAFETY: allocated by malloc_sync, used on this stream alone, which has nothing left to do.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}

struct Handle {
    api: Api,
    raw: RawHandle,
    workspace: Workspace,
}

// SAFETY: cuBLAS handles may be used from any thread, one at a time, which the mutex in `Blas` sees to.
unsafe impl Send for Handle {}

impl Handle {
    fn new(stream: &Stream) -> Result<Self> {
        let api = Api::load()?;
        let workspace = Workspace::new(stream)?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the context is bound (by Workspace::new), and `raw` is there to be written to.
        api.check("starting", unsafe { (api.create)(&raw mut raw) })?;
        let handle = Self { api, raw, workspace };
        // In this order: setting the stream takes the workspace away again.
        // SAFETY: the handle is alive, and so is the stream for as long as `workspace` holds it.
        handle.api.check("setting the stream", unsafe {
            (handle.api.set_stream)(raw, stream.raw().cu_stream().cast())
        })?;
        // SAFETY: the workspace has that many bytes and is freed after the handle.
        handle.api.check("setting the workspace", unsafe {
            (handle.api.set_workspace)(raw, handle.workspace.address as *mut c_void, WORKSPACE_BYTES)
        })?;
        Ok(handle)
    }

    /// cuBLAS stores matrices column by column, which turns every matrix into its transpose: it is asked for
    /// `outᵀ = rightᵀ · leftᵀ`.
    fn multiply(&self, product: &Product) -> Result<()> {
        let number = |value: usize| {
            c_int::try_from(value).map_err(|_| {
                Error::new(
                    ErrorCode::Shape,
                    format!("CUDA: a matrix of {value} rows or columns is too large"),
                )
            })
        };
        let operation = |matrix: Matrix| if matrix.transposed { OP_T } else { OP_N };
        let (kind, compute) = match product.dtype {
            DType::F64 => (R_64F, COMPUTE_64F),
            _ => (R_32F, COMPUTE_32F),
        };
        // The factors of the product and of what is there already, on the host in the type of the product.
        let (alpha, beta) = (1.0, if product.accumulate { 1.0 } else { 0.0 });
        let (doubles, floats) = ([alpha, beta], [alpha as f32, beta as f32]);
        let factor = |index: usize| match product.dtype {
            DType::F64 => (&raw const doubles[index]).cast::<c_void>(),
            _ => (&raw const floats[index]).cast(),
        };
        // SAFETY: the handle is alive, the factors are of the type that `compute` asks for and are read before
        // the call returns, and the matrices lie within live memory on this stream: `crate::kit` lays them
        // within tensors and scratch memory that driver/kit allocates.
        let status = unsafe {
            (self.api.gemm)(
                self.raw,
                operation(product.right),
                operation(product.left),
                number(product.columns)?,
                number(product.rows)?,
                number(product.inner)?,
                factor(0),
                product.right.address as *const c_void,
                kind,
                number(product.right.stride)?,
                product.left.address as *const c_void,
                kind,
                number(product.left.stride)?,
                factor(1),
                product.out.address as *mut c_void,
                kind,
                number(product.out.stride)?,
                compute,
                GEMM_DEFAULT,
            )
        };
        self.api.check("multiplying matrices", status)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.workspace.stream.context().bind_to_thread().is_ok() {
            // SAFETY: made by `create`, destroyed once, before its library and its workspace go.
            let _ = unsafe { (self.api.destroy)(self.raw) };
        }
    }
}

/// cuBLAS on one device: made by the first product, and tried again by the next where that fails.
#[derive(Default)]
pub(super) struct Blas(Mutex<Option<Handle>>);

impl Cuda {
    /// Puts one matrix product on the stream.
    pub(super) fn multiply(&self, product: &Product) -> Result<()> {
        let mut held = self.blas.0.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = match held.take() {
            Some(handle) => handle,
            None if self.is_capturing() => bail!(
                Cuda,
                "CUDA: cuBLAS cannot be started while a graph is captured: do the same once before the capture"
            ),
            None => Handle::new(&self.stream)?,
        };
        let handle = held.insert(handle);
        self.stream.uses([product.left.address, product.right.address, product.out.address])?;
        let mut outcome = Ok(());
        // Whatever cuBLAS launches belongs together: no capture begins in between.
        self.stream.submit("multiplying matrices", |_| {
            outcome = handle.multiply(product);
            Ok(())
        })?;
        outcome
    }
}
