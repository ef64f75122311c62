//! The fully connected layer as matrix products: `y = x·wᵀ`, `dw += dyᵀ·x`, `dx = dy·w`, in place where the
//! tensors have the dtype of the parameters; half types are widened a chunk of rows at a time.

use spikenorm_core::kit::LinearSpec;
use spikenorm_core::{DType, Result, bail};

use super::unfold::{self, ChannelSums, Planes, row_blocks};
use super::{MOST_PLACES, Matrix, Product, Step};
use crate::params::Address;

/// Where the tensors of a pass are, 0 where there is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinearAddresses {
    pub x: Address,
    pub weight: Address,
    pub bias: Address,
    /// The output, or its gradient.
    pub y: Address,
    pub dx: Address,
    pub weight_grad: Address,
    pub bias_grad: Address,
    /// [`LinearPlan::scratch_bytes`], aligned to 8 bytes.
    pub scratch: Address,
}

#[derive(Clone, Debug)]
pub struct LinearPlan {
    inputs: usize,
    outputs: usize,
    rows: usize,
    dtype: DType,
    /// Rows of a chunk.
    pub chunk_rows: usize,
    sums: ChannelSums,
}

/// Rows `row .. row + rows`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowChunk {
    pub row: usize,
    pub rows: usize,
}

impl LinearPlan {
    /// Matrices take at most `budget` bytes, or what one row needs.
    pub fn new(spec: &LinearSpec, rows: usize, dtype: DType, budget: usize) -> Result<Self> {
        let (inputs, outputs) = (spec.in_features, spec.out_features);
        let widest = inputs.max(outputs);
        if !dtype.is_float() {
            bail!(Dtype, "input: expected a float dtype, got {}", dtype.name());
        }
        if widest > MOST_PLACES {
            bail!(Shape, "input: rows of {widest} features are longer than CUDA's matrices can be");
        }
        let size = dtype.parameter().size();
        let chunk_rows = if dtype == dtype.parameter() {
            MOST_PLACES / row_blocks(1, widest)
        } else {
            (budget / (size * (inputs + outputs))).min(MOST_PLACES / widest)
        };
        let sums = ChannelSums::new(rows, outputs, 1)?;
        Ok(Self { inputs, outputs, rows, dtype, chunk_rows: chunk_rows.clamp(1, rows.max(1)), sums })
    }

    /// Chunks in order.
    pub fn chunks(&self) -> impl Iterator<Item = RowChunk> + use<> {
        let (all, rows) = (self.rows, self.chunk_rows);
        (0..all).step_by(rows).map(move |row| RowChunk { row, rows: rows.min(all - row) })
    }

    fn widens(&self) -> bool {
        self.dtype != self.dtype.parameter()
    }

    /// Bytes of a chunk of x, widened.
    fn widened_bytes(&self) -> usize {
        if self.widens() { self.chunk_rows * self.inputs * self.dtype.parameter().size() } else { 0 }
    }

    pub fn scratch_bytes(&self) -> usize {
        let outputs = self.widened_bytes() / self.inputs * self.outputs;
        (self.widened_bytes().next_multiple_of(8) + outputs).max(self.sums.scratch_bytes())
    }

    fn at(&self, tensor: Address, chunk: RowChunk, features: usize) -> Address {
        tensor + (chunk.row * features * self.dtype.size()) as u64
    }

    /// Rows of `tensor` as a matrix, once the step that widens them, if any, has been added.
    fn widened(
        &self,
        steps: &mut Vec<Step>,
        tensor: Address,
        chunk: RowChunk,
        features: usize,
        buffer: Address,
    ) -> Matrix {
        let address = self.at(tensor, chunk, features);
        if !self.widens() {
            return Matrix::new(address, features);
        }
        let plane = chunk.rows * features;
        let planes = Planes { address, sample_stride: plane, samples: 1, channels: 1, plane };
        steps.push(unfold::gather(self.dtype, planes, buffer));
        Matrix::new(buffer, features)
    }

    fn buffers(&self, scratch: Address) -> [Address; 2] {
        [scratch, scratch + self.widened_bytes().next_multiple_of(8) as u64]
    }

    pub fn forward(&self, at: &LinearAddresses) -> Vec<Step> {
        let mut steps = Vec::new();
        let (inputs, outputs) = (self.inputs, self.outputs);
        let [wide_x, wide_y] = self.buffers(at.scratch);
        for chunk in self.chunks() {
            let x = self.widened(&mut steps, at.x, chunk, inputs, wide_x);
            let y = self.at(at.y, chunk, outputs);
            let product = if self.widens() { wide_y } else { y };
            steps.push(Step::Product(Product {
                dtype: self.dtype.parameter(),
                rows: chunk.rows,
                columns: outputs,
                inner: inputs,
                left: x,
                right: Matrix::new(at.weight, inputs).transposed(),
                out: Matrix::new(product, outputs),
                accumulate: false,
            }));
            if self.widens() || at.bias != 0 {
                let count = chunk.rows * outputs;
                steps.push(unfold::add_row_bias(self.dtype, product, at.bias, y, count, outputs));
            }
        }
        steps
    }

    /// Without rows there are no steps, and the gradients of weight and bias are zeros. dx and the bias's
    /// gradient are left out where they have no address.
    pub fn backward(&self, at: &LinearAddresses) -> Vec<Step> {
        let mut steps = Vec::new();
        let (inputs, outputs, dtype) = (self.inputs, self.outputs, self.dtype.parameter());
        let [wide_x, wide_y] = self.buffers(at.scratch);
        for chunk in self.chunks() {
            let x = self.widened(&mut steps, at.x, chunk, inputs, wide_x);
            let dy = self.widened(&mut steps, at.y, chunk, outputs, wide_y);
            steps.push(Step::Product(Product {
                dtype,
                rows: outputs,
                columns: inputs,
                inner: chunk.rows,
                left: dy.transposed(),
                right: x,
                out: Matrix::new(at.weight_grad, inputs),
                accumulate: chunk.row > 0,
            }));
            if at.dx == 0 {
                continue;
            }
            let dx = self.at(at.dx, chunk, inputs);
            let product = if self.widens() { wide_x } else { dx };
            steps.push(Step::Product(Product {
                dtype,
                rows: chunk.rows,
                columns: inputs,
                inner: outputs,
                left: dy,
                right: Matrix::new(at.weight, inputs),
                out: Matrix::new(product, inputs),
                accumulate: false,
            }));
            if self.widens() {
                let count = chunk.rows * inputs;
                steps.push(unfold::add_row_bias(self.dtype, product, 0, dx, count, inputs));
            }
        }
        if at.bias_grad != 0 && self.rows > 0 {
            steps.extend(self.sums.steps(self.dtype, at.y, at.scratch, at.bias_grad));
        }
        steps
    }
}
