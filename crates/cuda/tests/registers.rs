//! What ptxas said when the kernels were compiled: registers spilled in a loop or one too many halve the speed of a kernel
//! whose results stay right.

use spikenorm_cuda::fatbin::{compiler_report, kernels};

/// 65536 registers of a multiprocessor over two blocks of 512 threads.
const MOST_REGISTERS: usize = 64;

/// Bytes of a thread that ptxas keeps in memory, which stay in L1: a counter of the loop over chunks or two, in kernels
/// for S = 1 and for float64. A second block per multiprocessor is worth more than those. The kernels are tuned for sm_90.
const MOST_SPILLED: usize = 8;
const MOST_SPILLED_ELSEWHERE: usize = 24;

fn number_before(line: &str, words: &str) -> Option<usize> {
    line[..line.find(words)?].split_whitespace().last()?.trim_start_matches('(').parse().ok()
}

#[test]
fn no_kernel_spills_in_its_inner_loops_and_two_blocks_fit_a_multiprocessor() {
    let Some(report) = compiler_report() else {
        eprintln!("SKIPPED: {}", kernels().err().unwrap_or("no report"));
        return;
    };
    let (mut kernel, mut most_spilled, mut checked) = ("", 0, 0);
    for line in report.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            kernel = rest.split('\'').next().unwrap_or("");
            most_spilled = if rest.contains("sm_90") { MOST_SPILLED } else { MOST_SPILLED_ELSEWHERE };
        }
        for what in [" bytes spill stores", " bytes spill loads"] {
            if let Some(bytes) = number_before(line, what) {
                assert!(bytes <= most_spilled, "{kernel}: {line}, at most {most_spilled} are accepted");
            }
        }
        if let Some(registers) = number_before(line, " registers") {
            let most = if kernel.contains("combine") { 2 * MOST_REGISTERS } else { MOST_REGISTERS };
            assert!(
                registers <= most,
                "{kernel} uses {registers} registers, at most {most} leave room for two blocks"
            );
            checked += 1;
        }
    }
    // Every kernel named in kernels.cu, for one architecture or more.
    assert!(checked >= 124, "the report tells of {checked} kernels");
}
