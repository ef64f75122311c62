//! Compiles the kernels with the host's C++ compiler and runs them under `emulation/`.

use std::ffi::{CString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use libloading::Library;
use spikenorm_cuda::launches::Launch;

/// Names a compiled emulator to use instead of building one: the sanitizer and mutation tests do so.
pub const LIBRARY_VARIABLE: &str = "SPIKENORM_EMULATOR";

/// Orders in which waiting threads go on; see emulation/emulator.cpp.
pub const SCHEDULES: u32 = 5;

#[repr(C)]
struct RawLaunch {
    grid: u32,
    threads: u32,
    cluster: u32,
    shared_bytes: u32,
    resident: u32,
    schedule: u32,
    seed: u32,
}

type Emulate =
    unsafe extern "C" fn(*const c_char, *const c_void, *const RawLaunch, *mut c_char, usize) -> i32;

pub struct Emulator {
    emulate: Emulate,
    // The emulator runs one launch at a time.
    turn: Mutex<()>,
    _library: Library,
}

/// The emulator, or `None` with a printed reason where there is no C++ compiler.
pub fn emulator() -> Option<&'static Emulator> {
    static ONE: OnceLock<Option<Emulator>> = OnceLock::new();
    ONE.get_or_init(|| {
        let given = std::env::var_os(LIBRARY_VARIABLE).map(PathBuf::from);
        let path = match given {
            Some(path) => path,
            None => match build(&crate_folder().join("kernels"), &[], "plain") {
                Ok(path) => path,
                Err(Build::NoCompiler) => {
                    eprintln!("SKIPPED: no C++ compiler (c++, or CXX), so the kernels cannot be emulated");
                    return None;
                }
                Err(Build::Failed(message)) => panic!("{message}"),
            },
        };
        // SAFETY: the library is the one built from emulation/, whose only initialisers register kernels.
        let library =
            unsafe { Library::new(&path) }.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // SAFETY: the symbol has this signature in emulation/emulator.cpp.
        let emulate = *unsafe { library.get::<Emulate>(b"spikenorm_emulate\0") }.unwrap();
        Some(Emulator { emulate, turn: Mutex::new(()), _library: library })
    })
    .as_ref()
}

impl Emulator {
    /// Runs one launch; `Err` says why it could not end.
    pub fn run<P>(&self, launch: &Launch<P>, schedule: u32) -> Result<(), String> {
        let clusters_at_once = 4;
        let raw = RawLaunch {
            grid: launch.blocks as u32,
            threads: launch.threads as u32,
            cluster: launch.cluster as u32,
            shared_bytes: launch.shared as u32,
            resident: (if launch.cooperative { launch.blocks } else { launch.cluster * clusters_at_once })
                as u32,
            schedule,
            seed: 12345 + schedule,
        };
        let name = CString::new(launch.kernel.as_str()).unwrap();
        let mut message = vec![0u8; 256];
        let turn = self.turn.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // SAFETY: the parameters are the struct the kernel of that name takes, their addresses are of
        // live buffers of the sizes the plan asks for, and `message` has the length given.
        let status = unsafe {
            (self.emulate)(
                name.as_ptr(),
                (&raw const launch.params).cast(),
                &raw const raw,
                message.as_mut_ptr().cast(),
                message.len(),
            )
        };
        drop(turn);
        if status == 0 {
            return Ok(());
        }
        message.retain(|&byte| byte != 0);
        Err(String::from_utf8_lossy(&message).into_owned())
    }
}

#[derive(Debug)]
pub enum Build {
    NoCompiler,
    Failed(String),
}

pub fn crate_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Compiles the kernels in `kernels` into a shared library, unless it is there already.
pub fn build(kernels: &Path, flags: &[&str], variant: &str) -> Result<PathBuf, Build> {
    let emulation = crate_folder().join("emulation");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulation");
    std::fs::create_dir_all(&folder).unwrap();
    let key = fingerprint(&[kernels, &emulation], flags);
    let library = folder.join(format!("{variant}-{key:016x}.so"));
    if library.exists() {
        return Ok(library);
    }
    let partial = folder.join(format!("{variant}-{key:016x}-{}.so", std::process::id()));
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let output = Command::new(compiler)
        .args([
            "-std=c++17",
            "-O1",
            "-g1",
            "-ffp-contract=off",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-unknown-pragmas",
        ])
        .args(["-DSPIKENORM_EMULATION", "-shared", "-fPIC", "-pthread"])
        .args(flags)
        .arg("-I")
        .arg(&emulation)
        .arg("-I")
        .arg(kernels)
        .args(["-x", "c++"])
        .arg(kernels.join("kernels.cu"))
        .arg(emulation.join("emulator.cpp"))
        .arg("-o")
        .arg(&partial)
        .output()
        .map_err(|_| Build::NoCompiler)?;
    if !output.status.success() {
        return Err(Build::Failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    std::fs::rename(&partial, &library).unwrap();
    Ok(library)
}

/// FNV-1a over the names and contents of the files and the flags.
fn fingerprint(folders: &[&Path], flags: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut eat = |bytes: &[u8]| {
        for &byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for folder in folders {
        let mut files: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.is_file());
        files.sort();
        for file in files {
            eat(file.file_name().unwrap().as_encoded_bytes());
            eat(&std::fs::read(&file).unwrap());
        }
    }
    flags.iter().for_each(|flag| eat(flag.as_bytes()));
    hash
}
