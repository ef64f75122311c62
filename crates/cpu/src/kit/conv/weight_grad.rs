//! The gradient of a convolution's weight: what each task adds up for itself, and how their sums become one tensor.

use spikenorm_core::kit::Conv2dSpec;
use spikenorm_core::{Result, workspace};

use crate::HostMemory;
use crate::backend::CpuTensor;
use crate::element::Real;
use crate::kit::scratch::Scratch;
use crate::matmul::{Matrix, MatrixMut, multiply};
use crate::parallel::for_each;

/// Outputs of a task of [`WeightGrad::merge`]: a cache line of float64.
const OUTPUTS: usize = 8;
/// Values of a task that adds sums.
const VALUES: usize = 4096;

/// The products whose sum the gradient is, and the order in which their values lie.
pub struct WeightGrad {
    outputs: usize,
    inputs: usize,
    /// Positions of the window.
    window: usize,
    /// Whether the products are images of x times columns of dy, not images of dy times columns of x: see
    /// [`Turned`](super::turned::Turned).
    turned: bool,
}

impl WeightGrad {
    pub fn new(spec: &Conv2dSpec, turned: bool) -> Self {
        let window = spec.window.kernel[0] * spec.window.kernel[1];
        Self { outputs: spec.out_channels, inputs: spec.in_channels, window, turned }
    }

    fn len(&self) -> usize {
        self.outputs * self.inputs * self.window
    }

    /// Channels of the images, rows of the columns.
    fn extents(&self) -> [usize; 2] {
        let (images, columns) =
            if self.turned { (self.inputs, self.outputs) } else { (self.outputs, self.inputs) };
        [images, columns * self.window]
    }

    /// Whether sums are `[rows of the columns, channels]`: the product brings its left factor in order first, which should
    /// be the smaller one.
    fn is_transposed(&self) -> bool {
        let [channels, rows] = self.extents();
        channels <= rows
    }

    /// A sum of nothing.
    pub fn zeros<A: Real>(&self) -> Result<Scratch> {
        let mut sum = Scratch::take::<A>(&[self.len()])?;
        let [values] = sum.split::<A, 1>([self.len()]);
        values.fill(A::default());
        Ok(sum)
    }

    /// Adds a tile's product.
    pub fn add<A: Real>(
        &self,
        sum: &mut Scratch,
        images: Matrix<'_, A>,
        columns: Matrix<'_, A>,
    ) -> Result<()> {
        let [sum] = sum.split::<A, 1>([self.len()]);
        let [channels, rows] = self.extents();
        if self.is_transposed() {
            multiply(MatrixMut::new(sum, rows, channels), columns, images.transposed(), true)
        } else {
            multiply(MatrixMut::new(sum, channels, rows), images, columns.transposed(), true)
        }
    }

    /// The tensor `[O, C, kh, kw]`, of sums added in float64 and in their order.
    pub fn merge<A: Real>(&self, mut sums: Vec<Scratch>, shape: &[usize]) -> Result<CpuTensor> {
        let len = self.len();
        let sums = workspace::collect(sums.iter_mut().map(|sum| &*sum.split::<A, 1>([len])[0]))?;
        let bytes = (sums.len() * size_of::<A>() + size_of::<f64>()) * len;
        let mut total = Scratch::take::<f64>(&[len])?;
        let [total] = total.split::<f64, 1>([len]);
        let tasks = workspace::collect(total.chunks_mut(VALUES).enumerate())?;
        for_each(bytes, tasks, |(task, total)| {
            total.fill(0.0);
            for sum in &sums {
                for (total, value) in total.iter_mut().zip(&sum[task * VALUES..]) {
                    *total += value.to_f64();
                }
            }
            Ok(())
        })?;

        let mut out = HostMemory::take(len * size_of::<A>())?;
        let (total, output) = (&*total, self.inputs * self.window);
        let tasks = out.as_mut_slice::<A>()[..len].chunks_mut(OUTPUTS * output);
        for_each(bytes, workspace::collect(tasks.enumerate())?, |(task, grads)| {
            for (c, k) in (0..self.inputs).flat_map(|c| (0..self.window).map(move |k| (c, k))) {
                for (o, grads) in grads.chunks_exact_mut(output).enumerate() {
                    let sum = total[self.place(task * OUTPUTS + o, c, k)];
                    grads[c * self.window + k] = A::from_f64(sum);
                }
            }
            Ok(())
        })?;
        Ok(CpuTensor::new(out, shape, A::DTYPE))
    }

    /// Where the gradient of weight (`o`, `c`, `k`-th position of the window) lies in a sum.
    #[inline(always)]
    fn place(&self, o: usize, c: usize, k: usize) -> usize {
        let [channels, rows] = self.extents();
        let (channel, row) = match self.turned {
            true => (c, o * self.window + self.window - 1 - k),
            false => (o, c * self.window + k),
        };
        if self.is_transposed() { row * channels + channel } else { channel * rows + row }
    }
}
