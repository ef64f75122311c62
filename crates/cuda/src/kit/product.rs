//! One matrix product, as data, and the steps of a pass.

use spikenorm_core::DType;

use super::UnfoldParams;
use crate::launches::Launch;
use crate::params::Address;

/// A matrix in memory, row by row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    pub address: Address,
    /// Elements from row to row.
    pub stride: usize,
    /// Whether the factor is the transpose of what is stored.
    pub transposed: bool,
}

impl Matrix {
    pub fn new(address: Address, stride: usize) -> Self {
        Self { address, stride, transposed: false }
    }

    pub fn transposed(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }
}

/// `out = left · right`, or `out += left · right`: [rows, inner] · [inner, columns].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// Of all three: float32 or float64.
    pub dtype: DType,
    pub rows: usize,
    pub columns: usize,
    pub inner: usize,
    pub left: Matrix,
    pub right: Matrix,
    pub out: Matrix,
    pub accumulate: bool,
}

/// What a pass puts on the stream, one after the other.
#[derive(Clone, Debug)]
pub enum Step {
    Launch(Launch<UnfoldParams>),
    Product(Product),
}
