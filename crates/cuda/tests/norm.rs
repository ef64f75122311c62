//! The norm family's kernels, emulated: what they compute is what the formulas say, on every plan that
//! the planner considers, with the same bits under every schedule.

mod support;

use spikenorm_core::DType;
use spikenorm_core::norm::{CudaPass, CudaPlan, Layout, TeamSync};
use support::case::{Case, Data, Random, Variant, grid, small_device};
use support::emulator::{Emulator, SCHEDULES, emulator};
use support::norm::NormCase;

const DTYPES: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

/// Set to run every plan of every case instead of a few of each kind.
fn exhaustive() -> bool {
    std::env::var_os("SPIKENORM_EXHAUSTIVE").is_some()
}

/// A few plans of each kind: the kinds differ in how members meet and in whether one sweep is enough.
fn some_of(plans: Vec<CudaPlan>, random: &mut Random) -> Vec<CudaPlan> {
    if exhaustive() {
        return plans;
    }
    let mut kinds: Vec<(TeamSync, bool, bool, Vec<CudaPlan>)> = Vec::new();
    for plan in plans {
        let (swept, cut) = (plan.chunks() > 1, plan.segments > 1);
        match kinds.iter_mut().find(|kind| (kind.0, kind.1, kind.2) == (plan.sync, swept, cut)) {
            Some(kind) => kind.3.push(plan),
            None => kinds.push((plan.sync, swept, cut, vec![plan])),
        }
    }
    kinds.iter().map(|kind| kind.3[random.below(kind.3.len())]).collect()
}

/// Checks all passes of a case on some plans and returns the plans it ran.
fn check(emulator: &Emulator, case: &Case, threads: usize, shared: usize, seed: u64, schedules: u32) -> Vec<CudaPlan> {
    let norm = NormCase::new(case, seed);
    let device = small_device(threads, shared);
    let mut random = Random::new(seed);
    let mut ran = Vec::new();
    for pass in [CudaPass::Forward, CudaPass::Apply, CudaPass::Backward] {
        for plan in some_of(norm.plans(pass, &device), &mut random) {
            let result = match pass {
                CudaPass::Forward => norm.check_forward(emulator, &plan, schedules),
                CudaPass::Apply => norm.check_frozen_forward(emulator, &plan, schedules),
                CudaPass::Backward => norm.check_backward(emulator, &plan, seed % 4 != 3, schedules),
            };
            result.unwrap_or_else(|why| panic!("{why}\n{case:?}\n{plan:?}"));
            ran.push(plan);
        }
    }
    ran
}

#[test]
fn every_variant_dtype_and_layout_matches_the_reference_on_every_kind_of_plan() {
    let Some(emulator) = emulator() else { return };
    let shapes = [
        grid(3, 5, 6, 49),
        grid(2, 3, 5, 1),
        grid(4, 7, 1, 16),
        grid(1, 4, 3, 196),
        grid(2, 9, 40, 4),
        grid(5, 2, 9, 3),
        grid(2, 2, 2, 1000),
    ];
    let mut ran = Vec::new();
    let mut seed = 0;
    for variant in Variant::ALL {
        for dtype in DTYPES {
            for layout in [Layout::Contiguous, Layout::ChannelsLast] {
                seed += 1;
                let case = Case { variant, grid: shapes[seed as usize % shapes.len()], layout, dtype, offset: 0, data: Data::Plain };
                ran.extend(check(emulator, &case, 64, 12 << 10, seed, SCHEDULES));
            }
        }
    }
    for sync in [TeamSync::Alone, TeamSync::Cluster, TeamSync::Cooperative, TeamSync::Launches] {
        for swept in [false, true] {
            let met = ran.iter().any(|plan| plan.sync == sync && (plan.chunks() > 1) == swept);
            assert!(met, "no plan met {sync:?}, more than one sweep: {swept}");
        }
    }
}
