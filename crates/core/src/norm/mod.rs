//! The twelve batch norms as one thing: a grid of (t, c) cells with `[rows, C]` tensors beside it.
//!
//! Row r of step t is 0 when shared over time and t otherwise. With R values in a statistics row,
//! mean μ_r, biased variance v_r, i_r = 1/√(v_r + eps), x̂ = (x − μ_r)·i_r and weight w, bias b, time
//! scale p (1, 0, 1 when absent):
//!
//! ```text
//! forward   y  = p_t · (w · x̂ + b)
//! backward  S1 = Σ dy, S2 = Σ dy·x̂ per cell
//!           dweight = Σ_t p·S2   dbias = Σ_t p·S1   dscale[t] = Σ_c (w·S2 + b·S1)
//!           k1_r = (1/R) Σ_{t in r} p·w·S1, k2_r likewise of S2; both 0 under running statistics
//!           dx = i_r · (p·w·dy − k1_r − x̂·k2_r)
//! ```

mod call;
mod coefficients;
mod cpu_plan;
mod cuda_cost;
mod cuda_neu_norm_plan;
mod cuda_plan;
mod moments;
mod spec;

pub use crate::shape::Layout;
pub use call::{NormForward, NormGrads, NormOutput, NormSaved, RunningUpdate, Statistics};
pub use coefficients::{
    Affine, CellSums, DxCoefficients, ParameterGrads, RowStatistics, dx_coefficients, inverse_std,
};
pub use cpu_plan::CpuPlan;
pub use cuda_neu_norm_plan::CudaNeuNormPlan;
pub use cuda_plan::{CudaDevice, CudaPass, CudaPlan, Lanes, SharedOffsets, TeamSync};
pub use moments::{ChannelMoments, Moments};
pub use spec::{NormSpec, Rows};
