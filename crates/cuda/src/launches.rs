//! The launches of a pass, in order, as data: what the launcher hands the driver and what the tests hand
//! the emulation.

use spikenorm_core::Grid;
use spikenorm_core::norm::{CudaNeuNormPlan, CudaPass, CudaPlan, Rows, TeamSync};

use crate::params::{NeuNormParams, NormParams, Phase, combine_kernel, neu_norm_kernel, norm_kernel};

/// Threads of the kernels between the halves of a pass.
const COMBINE_THREADS: usize = 128;

#[derive(Clone, Debug)]
pub struct Launch<P> {
    pub kernel: String,
    pub params: P,
    pub blocks: usize,
    pub threads: usize,
    /// Blocks per cluster.
    pub cluster: usize,
    /// All blocks must run at the same time.
    pub cooperative: bool,
    /// Dynamic shared memory in bytes.
    pub shared: usize,
}

/// Elements of scratch memory a pass needs. Only the barriers must hold zeros before the first pass: each
/// pass leaves them as the next one needs them, whatever its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// float64.
    pub slots: usize,
    /// float64.
    pub row_means: usize,
    /// float64.
    pub scale_terms: usize,
    /// 32-bit words.
    pub barriers: usize,
}

impl Workspace {
    pub fn of_norm(plan: &CudaPlan, statistics: Rows, scale_gradient: bool) -> Self {
        let Grid { t, c, .. } = plan.grid;
        let in_memory = matches!(plan.sync, TeamSync::Cooperative | TeamSync::Launches);
        let rows_in_memory = plan.sync == TeamSync::Launches && plan.pass == CudaPass::Backward;
        Self {
            slots: if in_memory && plan.pass != CudaPass::Apply { 2 * t * c * plan.team } else { 0 },
            row_means: if rows_in_memory { 2 * statistics.count(t) * c } else { 0 },
            scale_terms: if scale_gradient { t * c } else { 0 },
            barriers: plan.teams + 1,
        }
    }
}

/// Launches of a pass whose addresses are in `params`.
pub fn norm_launches(plan: &CudaPlan, params: &NormParams) -> Vec<Launch<NormParams>> {
    let pass = if plan.pass == CudaPass::Backward { "backward" } else { "forward" };
    let part = |phase: Phase, (first, steps): (usize, usize)| Launch {
        kernel: norm_kernel(pass, plan),
        params: params.launch(phase, first, steps),
        blocks: plan.blocks(),
        threads: plan.threads,
        cluster: if plan.sync == TeamSync::Cluster { plan.team } else { 1 },
        cooperative: plan.sync == TeamSync::Cooperative,
        shared: plan.offsets.total,
    };
    if plan.sync != TeamSync::Launches {
        return vec![part(Phase::Both, (0, plan.grid.t))];
    }
    let combination = |params: &NormParams| {
        let rows = match (plan.pass, params.statistics_stride) {
            (CudaPass::Forward, 0) => 1,
            _ => plan.grid.t,
        };
        Launch {
            kernel: combine_kernel(pass, plan),
            params: params.launch(Phase::Sums, 0, plan.grid.t),
            blocks: (rows * plan.grid.c).div_ceil(COMBINE_THREADS),
            threads: COMBINE_THREADS,
            cluster: 1,
            cooperative: false,
            shared: 16,
        }
    };
    let moves_running = plan.pass == CudaPass::Forward && params.running_mean != 0;
    let mut launches = Vec::new();
    if plan.pass != CudaPass::Apply {
        launches.extend(plan.launches().map(|steps| part(Phase::Sums, steps)));
        let without_running = NormParams { running_mean: 0, running_var: 0, counters: 0, ..*params };
        launches.push(combination(if moves_running { &without_running } else { params }));
    }
    launches.extend(plan.launches().map(|steps| part(Phase::Apply, steps)));
    if moves_running {
        // Last of all, since a launch may fail: the running statistics move once nothing else can.
        launches.push(combination(params));
    }
    launches
}

/// The launch of a NeuNorm pass; `pass` is "forward" or "backward".
pub fn neu_norm_launch(pass: &str, plan: &CudaNeuNormPlan, params: &NeuNormParams) -> Launch<NeuNormParams> {
    Launch {
        kernel: neu_norm_kernel(pass, plan),
        params: *params,
        blocks: plan.blocks(),
        threads: plan.threads,
        cluster: 1,
        cooperative: false,
        shared: plan.shared,
    }
}
