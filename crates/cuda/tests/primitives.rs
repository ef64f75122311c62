//! Every instruction that kernels/device.cuh names, assembled for the oldest architecture there is PTX for and for the one
//! there is machine code for: a default build does not assemble its PTX, a driver does when it is too late.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

const EVERY_PRIMITIVE: &str = r#"
#include "device.cuh"
extern "C" __global__ void every_primitive(char* global, float* floats, unsigned* words) {
    using namespace spikenorm;
    char* shared = dynamic_shared();
    copy_async<4>(shared, global);
    copy_async<8>(shared + 16, global + 16);
    copy_async<16>(shared + 32, global + 32);
    prefetch(global);
    copy_wait();
    cluster_arrive();
    cluster_wait();
    floats[0] = *cluster_peer(reinterpret_cast<float*>(shared), words[0]);
    floats[1] = half_to_float(float_to_half(floats[2]));
    words[1] = floats_to_halves(floats[3], floats[4]);
    words[2] = floats_to_bfloats(floats[5], floats[6]);
}
"#;

#[test]
fn every_primitive_assembles_for_the_oldest_and_the_default_architecture() {
    let Some(nvcc) = option_env!("SPIKENORM_NVCC") else {
        eprintln!("SKIPPED: this build found no nvcc");
        return;
    };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let source = folder.join("every_primitive.cu");
    std::fs::write(&source, EVERY_PRIMITIVE).unwrap();
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    for architecture in ["sm_75", "sm_90"] {
        let run = Command::new(nvcc)
            .args(["-std=c++17", "-cubin", "-arch", architecture, "-I"])
            .args([&kernels, &source])
            .arg("-o")
            .arg(folder.join(format!("every_primitive.{architecture}.cubin")))
            .output()
            .unwrap();
        assert!(run.status.success(), "{architecture}: {}", String::from_utf8_lossy(&run.stderr));
    }
}
