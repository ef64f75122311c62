//! The norm family's kernels, emulated: what they compute is what the formulas say, on every plan that
//! the planner considers, with the same bits under every schedule.

use crate::support::case::{Case, Data, Random, Variant, grid, small_device};
use crate::support::emulator::{Emulator, SCHEDULES, emulator};
use crate::support::norm::NormCase;
use spikenorm_core::DType;
use spikenorm_core::norm::{CudaDevice, CudaPass, CudaPlan, Layout, TeamSync};

const DTYPES: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

/// Set to run every plan of every case instead of a few of each kind.
fn exhaustive() -> bool {
    std::env::var_os("SPIKENORM_EXHAUSTIVE").is_some()
}

/// A few plans of each kind: the kinds differ in how members meet, in whether one sweep is enough and in whether rows
/// are in pieces.
fn some_of(plans: Vec<CudaPlan>, random: &mut Random) -> Vec<CudaPlan> {
    if exhaustive() {
        return plans;
    }
    let mut kinds: Vec<((TeamSync, bool, bool), Vec<CudaPlan>)> = Vec::new();
    for plan in plans {
        let kind = (plan.sync, plan.chunks() > 1, plan.segments > 1);
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, plans)) => plans.push(plan),
            None => kinds.push((kind, vec![plan])),
        }
    }
    kinds.iter().map(|(_, plans)| plans[random.below(plans.len())]).collect()
}

/// Checks all passes of a case on some plans and returns the plans it ran.
fn check(
    emulator: &Emulator,
    case: &Case,
    threads: usize,
    shared: usize,
    seed: u64,
    schedules: u32,
) -> Vec<CudaPlan> {
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
                let case = Case {
                    variant,
                    grid: shapes[seed as usize % shapes.len()],
                    layout,
                    dtype,
                    offset: 0,
                    data: Data::Plain,
                };
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

#[test]
fn a_mean_of_a_million_deviations_costs_no_digits() {
    let Some(emulator) = emulator() else { return };
    let far = Data::Far { mean: 1e4, deviation: 1e-2 };
    for (seed, (dtype, variant)) in [
        (DType::F32, Variant::BatchNorm),
        (DType::F32, Variant::ThroughTime),
        (DType::F64, Variant::TemporalEffective),
        (DType::F64, Variant::BatchNorm),
    ]
    .into_iter()
    .enumerate()
    {
        for layout in [Layout::Contiguous, Layout::ChannelsLast] {
            let case = Case { variant, grid: grid(2, 6, 3, 100), layout, dtype, offset: 0, data: far };
            check(emulator, &case, 64, 12 << 10, seed as u64, 2);
        }
    }
}

#[test]
fn a_gradient_that_is_the_same_everywhere_leaves_none_for_the_weight() {
    let Some(emulator) = emulator() else { return };
    for (seed, variant) in [Variant::BatchNorm, Variant::ThroughTime].into_iter().enumerate() {
        for shape in [grid(2, 16, 2, 400), grid(2, 4000, 3, 1)] {
            for dtype in [DType::F32, DType::F16] {
                let case = Case {
                    variant,
                    grid: shape,
                    layout: Layout::Contiguous,
                    dtype,
                    offset: 0,
                    data: Data::Level,
                };
                check(emulator, &case, 64, 12 << 10, 4 * seed as u64, 1);
            }
        }
    }
}

#[test]
fn statistics_per_step_do_not_rest_on_the_first_step() {
    let Some(emulator) = emulator() else { return };
    let data = Data::Drifting { mean: 1e4, deviation: 1e-2 };
    for layout in [Layout::Contiguous, Layout::ChannelsLast] {
        let variant = Variant::ThroughTime;
        let case = Case { variant, grid: grid(3, 6, 3, 100), layout, dtype: DType::F32, offset: 0, data };
        check(emulator, &case, 64, 12 << 10, 1, 2);
    }
}

#[test]
fn spikes_match_the_reference_in_every_dtype() {
    let Some(emulator) = emulator() else { return };
    for (seed, dtype) in DTYPES.into_iter().enumerate() {
        let variant = Variant::ALL[seed];
        let case = Case {
            variant,
            grid: grid(4, 8, 5, 64),
            layout: Layout::Contiguous,
            dtype,
            offset: 0,
            data: Data::Spikes,
        };
        check(emulator, &case, 64, 12 << 10, seed as u64, 2);
    }
}

#[test]
fn tensors_may_start_at_any_element() {
    let Some(emulator) = emulator() else { return };
    let mut seed = 100;
    for dtype in DTYPES {
        for offset in [2, 4, 8].into_iter().filter(|offset| offset % dtype.size() == 0) {
            for shape in [grid(2, 3, 4, 16), grid(2, 5, 7, 1)] {
                seed += 1;
                let variant = Variant::TemporalEffective;
                let case = Case {
                    variant,
                    grid: shape,
                    layout: Layout::Contiguous,
                    dtype,
                    offset,
                    data: Data::Plain,
                };
                let ran = check(emulator, &case, 64, 12 << 10, seed, 2);
                assert!(ran.iter().all(|plan| plan.copy_bytes <= offset), "{case:?}");
            }
        }
    }
}

#[test]
fn a_value_that_is_not_finite_spoils_its_own_channel_only() {
    let Some(emulator) = emulator() else { return };
    let mut seed = 200;
    for value in [f64::NAN, f64::INFINITY] {
        for (shape, layout) in
            [(grid(2, 4, 6, 9), Layout::Contiguous), (grid(2, 4, 6, 9), Layout::ChannelsLast)]
        {
            for variant in [Variant::BatchNorm, Variant::ThroughTime] {
                seed += 1;
                let data = Data::Broken { channel: 3, value };
                let case = Case { variant, grid: shape, layout, dtype: DType::F32, offset: 0, data };
                let norm = NormCase::new(&case, seed);
                assert_eq!(
                    norm.expected.y.iter().filter(|y| y.is_nan()).count() % 9,
                    0,
                    "the reference spoils cells"
                );
                let device = small_device(64, 12 << 10);
                for plan in some_of(norm.plans(CudaPass::Forward, &device), &mut Random::new(seed)) {
                    let result = norm.check_forward(emulator, &plan, 2);
                    result.unwrap_or_else(|why| panic!("{why}\n{case:?}\n{plan:?}"));
                }
            }
        }
    }
}

#[test]
fn under_running_statistics_dx_does_not_depend_on_the_input() {
    let Some(emulator) = emulator() else { return };
    let mut seed = 300;
    for value in [f64::NAN, f64::INFINITY] {
        for layout in [Layout::Contiguous, Layout::ChannelsLast] {
            for variant in Variant::ALL {
                seed += 1;
                let data = Data::Broken { channel: 3, value };
                let case =
                    Case { variant, grid: grid(2, 4, 6, 9), layout, dtype: DType::F32, offset: 0, data };
                let norm = NormCase::new(&case, seed);
                assert!(norm.frozen.dx.iter().all(|dx| dx.is_finite()), "the reference is finite");
                let device = small_device(64, 12 << 10);
                for plan in some_of(norm.plans(CudaPass::Backward, &device), &mut Random::new(seed)) {
                    let result = norm.check_backward(emulator, &plan, false, 2);
                    result.unwrap_or_else(|why| panic!("{why}\n{case:?}\n{plan:?}"));
                }
            }
        }
    }
}

#[test]
fn time_steps_that_do_not_fit_together_take_several_launches() {
    let Some(emulator) = emulator() else { return };
    for (seed, variant) in Variant::ALL.into_iter().enumerate() {
        let case = Case {
            variant,
            grid: grid(150, 2, 3, 4),
            layout: Layout::Contiguous,
            dtype: DType::F32,
            offset: 0,
            data: Data::Plain,
        };
        let ran = check(emulator, &case, 64, 10 << 10, 4 * seed as u64, 2);
        assert!(ran.iter().any(|plan| plan.launches().count() > 1), "{variant:?}");
    }
}

#[test]
fn blocks_of_the_size_a_gpu_runs_match_the_reference() {
    let Some(emulator) = emulator() else { return };
    for (seed, (shape, dtype)) in [
        (grid(2, 8, 12, 49), DType::F16),
        (grid(2, 6, 3, 400), DType::F32),
        (grid(3, 40, 70, 1), DType::BF16),
        (grid(2, 12, 9, 16), DType::F64),
    ]
    .into_iter()
    .enumerate()
    {
        let variant = Variant::ALL[seed];
        let case =
            Case { variant, grid: shape, layout: Layout::Contiguous, dtype, offset: 0, data: Data::Plain };
        check(emulator, &case, 512, 48 << 10, seed as u64, 2);
    }
}

#[test]
fn random_shapes_match_the_reference_on_the_plan_chosen_for_them() {
    let Some(emulator) = emulator() else { return };
    let mut random = Random::new(7);
    for seed in 0..if exhaustive() { 2000 } else { 120 } {
        let spaces = [1, 2, 3, 4, 8, 16, 49, 57, 196, 255, 600];
        let case = Case {
            variant: Variant::ALL[random.below(Variant::ALL.len())],
            grid: grid(
                1 + random.below(5),
                2 + random.below(7),
                1 + random.below(24),
                spaces[random.below(spaces.len())],
            ),
            layout: [Layout::Contiguous, Layout::ChannelsLast][random.below(2)],
            dtype: DTYPES[random.below(4)],
            offset: [0, 0, 8][random.below(3)],
            data: Data::Plain,
        };
        let norm = NormCase::new(&case, seed);
        let device = CudaDevice {
            max_cluster: [1, 8][random.below(2)],
            cooperative: random.below(3) > 0,
            multiprocessors: 1 + random.below(6),
            ..small_device(32 << random.below(3), (10 + random.below(20)) << 10)
        };
        let plan = |pass| {
            CudaPlan::new(pass, case.grid, case.layout, case.dtype, case.alignment(), &device).unwrap()
        };
        let schedules = 1 + random.below(3) as u32;
        let (forward, backward) = (plan(CudaPass::Forward), plan(CudaPass::Backward));
        norm.check_forward(emulator, &forward, schedules)
            .unwrap_or_else(|why| panic!("{why}\n{case:?}\n{forward:?}"));
        let batch_statistics = random.below(4) > 0;
        norm.check_backward(emulator, &backward, batch_statistics, schedules)
            .unwrap_or_else(|why| panic!("{why}\n{case:?}\n{backward:?}"));
    }
}
