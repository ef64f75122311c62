//! Compiles kernels/kernels.cu into one fat binary that the crate embeds. Without nvcc the crate builds
//! without kernels and knows why; only kernels that do not compile fail the build.
//!
//! Default: machine code for sm_90 and PTX for anything newer or older (compute_75), which the driver
//! compiles when it is first used. `SPIKENORM_CUDA_ARCHS="75 80 86 89 90 100 120"` makes machine code for
//! those, and PTX of the newest. `SPIKENORM_NO_CUDA`, unless it is empty or 0, leaves the kernels out.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const KERNELS: [&str; 22] = [
    "device.cuh",
    "elementwise.cuh",
    "kernels.cu",
    "kit_params.h",
    "lanes.cuh",
    "loss.cuh",
    "moments.cuh",
    "neu_norm.cuh",
    "neuron.cuh",
    "norm_backward.cuh",
    "norm_forward.cuh",
    "numeric.cuh",
    "optim.cuh",
    "params.h",
    "pool.cuh",
    "scalar.cuh",
    "span.cuh",
    "team.cuh",
    "tile.cuh",
    "unfold.cuh",
    "unfold.h",
    "../build.rs",
];

/// The first nvcc that packs fat binaries to a sixth of their size. Drivers of CUDA 12.4 and later unpack them.
const COMPRESSES: (u32, u32) = (12, 8);

fn main() {
    for variable in ["SPIKENORM_CUDA_ARCHS", "SPIKENORM_NO_CUDA", "CUDA_HOME", "CUDA_PATH", "PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    println!("cargo::rustc-check-cfg=cfg(spikenorm_kernels)");
    let kernels = Path::new("kernels");
    for file in KERNELS {
        println!("cargo::rerun-if-changed={}", kernels.join(file).display());
    }
    let reason = match find_nvcc() {
        Ok(nvcc) => {
            compile(&nvcc, &kernels.join("kernels.cu"));
            println!("cargo::rustc-cfg=spikenorm_kernels");
            println!("cargo::rustc-env=SPIKENORM_NVCC={}", nvcc.display());
            println!("cargo::rustc-env=SPIKENORM_KERNEL_TARGETS={}", targets().join(" "));
            String::new()
        }
        Err(reason) => reason,
    };
    println!("cargo::rustc-env=SPIKENORM_NO_KERNELS_REASON={reason}");
}

/// The places scripts/setup-cuda.mjs looks in, in its order.
fn find_nvcc() -> Result<PathBuf, String> {
    if let Some(reason) = without_driver() {
        return Err(reason.into());
    }
    if env::var("SPIKENORM_NO_CUDA").is_ok_and(|value| !matches!(value.trim(), "" | "0")) {
        return Err("this build has no CUDA kernels, since SPIKENORM_NO_CUDA was set".into());
    }
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/cuda/site/nvidia/cu13/bin");
    println!("cargo::rerun-if-changed={}", cache.display());
    let path = env::var_os("PATH").unwrap_or_default();
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os);
    let folders =
        env::split_paths(&path).chain(homes.map(|home| PathBuf::from(home).join("bin"))).chain([cache]);
    let runs = |nvcc: &PathBuf| {
        nvcc.is_file() && Command::new(nvcc).arg("--version").output().is_ok_and(|run| run.status.success())
    };
    let name = if cfg!(windows) { "nvcc.exe" } else { "nvcc" };
    folders.map(|folder| folder.join(name)).find(runs).ok_or_else(|| {
        println!("cargo::warning=no CUDA kernels: nvcc was not found; npm run setup:cuda installs it");
        "this build has no CUDA kernels, since nvcc was not found; \
         install a prebuilt package of spikenorm, or build again where the CUDA toolkit is installed"
            .into()
    })
}

/// Why a build for this target cannot have kernels, nvcc or not.
fn without_driver() -> Option<&'static str> {
    let target = |what: &str| env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    if target("OS") == "macos" {
        Some("there is no NVIDIA driver for macOS")
    } else if target("ENV") == "musl" {
        Some("the NVIDIA driver needs glibc and this build is for musl")
    } else {
        None
    }
}

/// The compiler's release, (0, 0) where it does not say one.
fn release(nvcc: &Path) -> (u32, u32) {
    let said = Command::new(nvcc).arg("--version").output().map(|run| run.stdout).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let number =
        said.split("release ").nth(1).and_then(|rest| rest.split([',', ' ', '\n']).next()).unwrap_or("");
    let mut parts = number.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// `-gencode` arguments for the architectures asked for.
fn architectures() -> Vec<String> {
    let asked = env::var("SPIKENORM_CUDA_ARCHS").unwrap_or_default();
    let mut list: Vec<u32> = asked
        .split([' ', ',', ';'])
        .filter(|word| !word.is_empty())
        .map(|word| {
            word.parse()
                .unwrap_or_else(|_| panic!("SPIKENORM_CUDA_ARCHS: expected numbers such as 90, got '{word}'"))
        })
        .collect();
    list.sort_unstable();
    let machine_code = |arch: &u32| format!("arch=compute_{arch},code=sm_{arch}");
    let ptx = |arch: u32| format!("arch=compute_{arch},code=compute_{arch}");
    match list.last() {
        None => vec![machine_code(&90), ptx(75)],
        Some(&newest) => list.iter().map(machine_code).chain([ptx(newest)]).collect(),
    }
}

/// What the kernels are compiled to, such as `sm_90` and `compute_75` (PTX).
fn targets() -> Vec<String> {
    architectures().iter().filter_map(|pair| Some(pair.split_once("code=")?.1.to_owned())).collect()
}

fn compile(nvcc: &Path, source: &Path) {
    let output = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("kernels.fatbin");
    let mut command = Command::new(nvcc);
    command.args(["-fatbin", "-std=c++17", "-O3", "-Xptxas", "-v"]);
    if release(nvcc) >= COMPRESSES {
        command.arg("--compress-mode=size");
    }
    for architecture in architectures() {
        command.args(["-gencode", &architecture]);
    }
    command.arg(source).arg("-o").arg(&output);
    let run = command.output().unwrap_or_else(|error| panic!("{}: {error}", nvcc.display()));
    let messages = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{} could not compile the kernels:\n{messages}", nvcc.display());
    // tests/registers.rs reads what ptxas says of each kernel.
    std::fs::write(output.with_extension("ptxas.txt"), messages.as_bytes()).expect("OUT_DIR is writable");
}
