//! Claims about plans that no GPU is needed for.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use spikenorm_core::norm::{CudaDevice, CudaNeuNormPlan, CudaPass, CudaPlan, Lanes, Layout, TeamSync};
use spikenorm_core::{DType, Grid};

const H200: CudaDevice = CudaDevice {
    multiprocessors: 132,
    shared_per_block: 232_448,
    shared_per_multiprocessor: 233_472,
    shared_reserved: 1024,
    threads: 512,
    max_cluster: 8,
    cooperative: true,
};

fn device() -> impl Strategy<Value = CudaDevice> {
    (1usize..150, 12usize..228, 1usize..17, 0usize..4, any::<bool>()).prop_map(
        |(multiprocessors, kilobytes, warps, cluster, cooperative)| CudaDevice {
            multiprocessors,
            shared_per_block: kilobytes << 10,
            shared_per_multiprocessor: (kilobytes << 10) + 1024,
            shared_reserved: 1024,
            threads: 32 * warps,
            max_cluster: 1 << cluster,
            cooperative,
        },
    )
}

fn grid() -> impl Strategy<Value = Grid> {
    let space = prop_oneof![Just(1usize), Just(49), Just(196), Just(16), Just(3136), 1usize..600];
    (1usize..7, 1usize..17, prop_oneof![Just(1usize), 1usize..80], space).prop_map(|(t, n, c, s)| Grid {
        t,
        n,
        c,
        s,
    })
}

fn dtype() -> impl Strategy<Value = DType> {
    prop_oneof![Just(DType::F32), Just(DType::F16), Just(DType::BF16), Just(DType::F64)]
}

fn pass() -> impl Strategy<Value = CudaPass> {
    prop_oneof![Just(CudaPass::Forward), Just(CudaPass::Apply), Just(CudaPass::Backward)]
}

fn layout() -> impl Strategy<Value = Layout> {
    prop_oneof![Just(Layout::Contiguous), Just(Layout::ChannelsLast)]
}

/// How often each element is visited by the blocks of all launches, the way the kernels walk a plan.
fn visits(plan: &CudaPlan) -> Vec<u8> {
    let Grid { n, c, s, .. } = plan.grid;
    let mut seen = vec![0u8; plan.grid.len()];
    for (first, steps) in plan.launches() {
        for block in 0..plan.blocks() {
            let (team, member) = (block / plan.team, block % plan.team);
            for tile in (team..plan.tiles).step_by(plan.teams) {
                let channels = tile * plan.tile_channels..((tile + 1) * plan.tile_channels).min(c);
                let rows = plan.member_rows(member);
                for chunk in rows.clone().step_by(plan.chunk_rows) {
                    for row in chunk..(chunk + plan.chunk_rows).min(rows.end) {
                        let (sample, values) = plan.row_values(row);
                        for step in first..first + steps {
                            for channel in channels.clone() {
                                let start = ((step * n + sample) * c + channel) * s;
                                seen[start + values.start..start + values.end]
                                    .iter_mut()
                                    .for_each(|count| *count += 1);
                            }
                        }
                    }
                }
            }
        }
    }
    seen
}

fn check_fits(plan: &CudaPlan, device: &CudaDevice, alignment: usize) -> Result<(), TestCaseError> {
    let size = plan.dtype.size();
    let slab = plan.tile_channels * plan.segment * size;
    prop_assert!(plan.offsets.total <= device.shared_per_block);
    prop_assert!(plan.offsets.tensor >= plan.steps * plan.chunk_rows * plan.pitch);
    let tiles = plan.pass.tensors() * plan.offsets.tensor;
    prop_assert!(plan.offsets.total >= plan.offsets.tile + tiles);
    prop_assert!(plan.pitch >= slab && plan.pitch.is_multiple_of(16));
    prop_assert!(plan.team <= plan.rows && plan.teams <= plan.tiles);
    prop_assert!(plan.segments == 1 || plan.tile_channels == 1, "only single channels are cut into pieces");
    match plan.sync {
        TeamSync::Alone => prop_assert_eq!(plan.team, 1),
        TeamSync::Cluster => prop_assert!(plan.team <= device.max_cluster && plan.teams == plan.tiles),
        TeamSync::Cooperative => {
            prop_assert!(device.cooperative);
            prop_assert!(
                plan.blocks() <= device.multiprocessors * device.resident(plan.threads, plan.offsets.total)
            );
        }
        TeamSync::Launches => prop_assert_eq!(plan.teams, plan.tiles),
    }
    // Each copy is aligned at both ends: whatever the launch, row, tile and piece it starts at.
    for stride in [plan.grid.c * plan.grid.s * size, alignment] {
        prop_assert!(stride.is_multiple_of(plan.copy_bytes));
    }
    if plan.tiles > 1 {
        prop_assert!((plan.tile_channels * plan.grid.s * size).is_multiple_of(plan.copy_bytes));
    }
    for row in 0..plan.segments {
        let (_, values) = plan.row_values(row);
        prop_assert!(plan.segments == 1 || (values.start * size).is_multiple_of(plan.copy_bytes));
        prop_assert!(plan.segments == 1 || (values.len() * size).is_multiple_of(plan.copy_bytes));
        if let Lanes::Space(vector) = plan.lanes {
            prop_assert!(values.len().is_multiple_of(vector));
        }
    }
    if let Lanes::Channel(vector) = plan.lanes {
        prop_assert!(plan.pitch >= plan.tile_channels.next_multiple_of(vector) * size);
        prop_assert_eq!(plan.grid.s, 1);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn the_chosen_plan_visits_every_element_once_and_fits_its_device(
        grid in grid(), dtype in dtype(), pass in pass(), layout in layout(), device in device(),
        power in 0u32..5,
    ) {
        let alignment = (1usize << power).max(dtype.size());
        let plan = CudaPlan::new(pass, grid, layout, dtype, alignment, &device).unwrap();
        check_fits(&plan, &device, alignment)?;
        prop_assert!(visits(&plan).iter().all(|&count| count == 1), "{plan:?}");
    }

    #[test]
    fn every_plan_considered_visits_every_element_once_and_fits_its_device(
        grid in (1usize..4, 1usize..6, 1usize..20, prop_oneof![Just(1usize), Just(49), 1usize..300])
            .prop_map(|(t, n, c, s)| Grid { t, n, c, s }),
        dtype in dtype(), pass in pass(), layout in layout(), device in device(),
        pick in any::<prop::sample::Index>(),
    ) {
        let plans = CudaPlan::all(pass, grid, layout, dtype, 16, &device).unwrap();
        for plan in &plans {
            check_fits(plan, &device, 16)?;
        }
        let plan = plans[pick.index(plans.len())];
        prop_assert!(visits(&plan).iter().all(|&count| count == 1), "{plan:?}");
    }

    #[test]
    fn a_neu_norm_plan_gives_every_pixel_one_column_and_every_sample_one_group(
        grid in grid(), dtype in dtype(), layout in layout(), backward in any::<bool>(), device in device(),
        power in 0u32..5,
    ) {
        let alignment = (1usize << power).max(dtype.size());
        let plan = CudaNeuNormPlan::new(backward, grid, layout, dtype, alignment, &device).unwrap();
        let strip = plan.columns * plan.vector;
        prop_assert!(plan.strips * strip >= grid.s && (plan.strips - 1) * strip < grid.s);
        prop_assert!(grid.s.is_multiple_of(plan.vector));
        prop_assert!(alignment.is_multiple_of(plan.vector * dtype.size()));
        prop_assert!(plan.groups * plan.group_samples >= grid.n);
        prop_assert!((plan.groups - 1) * plan.group_samples < grid.n);
        prop_assert!(plan.threads <= 512 && plan.threads.is_multiple_of(32));
        prop_assert!(plan.columns * plan.lanes <= plan.threads);
        // What a block of any device has without asking.
        prop_assert!(plan.shared <= 48 << 10);
    }
}

#[test]
fn layers_of_real_networks_are_read_once_on_an_h200() {
    // (T, N, C, H = W), from spiking ResNets and VGGs.
    let shapes = [
        (4, 32, 64, 56),
        (4, 128, 128, 32),
        (10, 32, 256, 16),
        (4, 64, 128, 28),
        (4, 32, 256, 14),
        (4, 32, 512, 7),
        (4, 128, 512, 4),
    ];
    for (t, n, c, side) in shapes {
        for dtype in [DType::F32, DType::F16] {
            for pass in [CudaPass::Forward, CudaPass::Backward] {
                let grid = Grid { t, n, c, s: side * side };
                let plan = CudaPlan::new(pass, grid, Layout::Contiguous, dtype, 256, &H200).unwrap();
                assert_ne!(plan.sync, TeamSync::Launches, "{plan:?}");
                assert_eq!(plan.chunks(), 1, "{plan:?}");
                assert!(plan.blocks() * 10 >= H200.multiprocessors * 9, "{plan:?}");
                println!(
                    "T={t} N={n} C={c} {side}x{side} {} {pass:?}: K={} {:?}, {} teams, {} channels, {} pieces, {} bytes a copy, {:?}, {} KB",
                    dtype.name(),
                    plan.team,
                    plan.sync,
                    plan.teams,
                    plan.tile_channels,
                    plan.segments,
                    plan.copy_bytes,
                    plan.lanes,
                    plan.offsets.total >> 10
                );
            }
        }
    }
}

#[test]
fn a_channel_larger_than_the_device_is_swept_twice_or_takes_several_launches() {
    let grid = Grid { t: 8, n: 64, c: 1, s: 512 * 512 };
    let plan = CudaPlan::new(CudaPass::Forward, grid, Layout::Contiguous, DType::F32, 256, &H200).unwrap();
    assert!(plan.chunks() > 1 || plan.sync == TeamSync::Launches, "{plan:?}");
    assert!(plan.blocks() >= H200.multiprocessors, "{plan:?}");
}

#[test]
fn more_time_steps_than_fit_are_shared_over_launches() {
    let grid = Grid { t: 5000, n: 2, c: 3, s: 4 };
    let plan = CudaPlan::new(CudaPass::Backward, grid, Layout::Contiguous, DType::F32, 256, &H200).unwrap();
    assert_eq!(plan.sync, TeamSync::Launches);
    assert!(plan.launches().count() > 1);
    assert!(visits(&plan).iter().all(|&count| count == 1));
}
