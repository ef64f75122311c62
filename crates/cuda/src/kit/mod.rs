//! The training kit as data: how a pass is cut, and its launches and matrix products in order.

mod conv;
mod linear;
mod product;
mod unfold;

pub use conv::{Conv2dAddresses, Conv2dPlan};
pub use linear::{LinearAddresses, LinearPlan};
pub use product::{Matrix, Product, Step};
pub use unfold::{ChannelSums, UnfoldParams};

/// What matrices around the products may take: a fraction of any device's memory, and with a million
/// columns and more the products reach their speed.
pub const SCRATCH_BYTES: usize = 256 << 20;

/// Launches and cuBLAS count places in 32 bits, with a sign.
const MOST_PLACES: usize = (1 << 31) - 1;
