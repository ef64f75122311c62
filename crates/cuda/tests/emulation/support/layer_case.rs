//! One case of a layer with weights: plan, run the steps, compare. Launches run in the emulation; matrix
//! products are computed here.

use spikenorm_core::DType;
use spikenorm_core::kit::{Conv2dSpec, LinearSpec, Window};
use spikenorm_cuda::kit::{Conv2dAddresses, Conv2dPlan, LinearAddresses, LinearPlan, Matrix, Product, Step};

use super::buffer::{Buffer, address, rounded};
use super::case::Random;
use super::emulator::Emulator;
use super::layers::{LayerInputs, LayerResults, conv2d, linear};
use super::norm::same_bits;
use super::tolerance::compare;

#[derive(Clone, Debug)]
pub enum Layer {
    Conv2d { samples: usize, image: [usize; 2], spec: Conv2dSpec },
    Linear { rows: usize, spec: LinearSpec },
}

#[derive(Clone, Debug)]
pub struct LayerCase {
    pub layer: Layer,
    pub dtype: DType,
    pub bias: bool,
    /// Bytes by which every tensor misses an address that is a multiple of 16.
    pub offset: usize,
    /// Bytes the matrices may take.
    pub budget: usize,
}

/// A convolution from `[in, out]` channels with square kernels.
pub fn conv(
    samples: usize,
    channels: [usize; 2],
    image: [usize; 2],
    [kernel, stride, padding]: [usize; 3],
) -> Layer {
    let window = Window { kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2] };
    let spec = Conv2dSpec { in_channels: channels[0], out_channels: channels[1], window };
    Layer::Conv2d { samples, image, spec }
}

pub fn fully_connected(rows: usize, in_features: usize, out_features: usize) -> Layer {
    Layer::Linear { rows, spec: LinearSpec { in_features, out_features } }
}

impl Layer {
    /// Shapes of x, weight and y.
    pub fn shapes(&self) -> [Vec<usize>; 3] {
        match self {
            Self::Conv2d { samples, image, spec } => {
                let [height, width] = spec.window.output(*image).unwrap();
                [
                    vec![*samples, spec.in_channels, image[0], image[1]],
                    spec.weight_shape().to_vec(),
                    vec![*samples, spec.out_channels, height, width],
                ]
            }
            Self::Linear { rows, spec } => {
                [vec![*rows, spec.in_features], spec.weight_shape().to_vec(), vec![*rows, spec.out_features]]
            }
        }
    }

    pub fn inputs(&self, dtype: DType, bias: bool, seed: u64) -> LayerInputs {
        let mut random = Random::new(seed);
        let [x, weight, y] = self.shapes().map(|shape| shape.iter().product());
        let parameter = dtype.parameter();
        LayerInputs {
            x: rounded(&random.normals(x, 0.3, 1.0), dtype),
            weight: rounded(&random.normals(weight, 0.0, 0.3), parameter),
            bias: bias.then(|| rounded(&random.normals(self.shapes()[1][0], 0.0, 1.0), parameter)),
            dy: rounded(&random.normals(y, 0.1, 1.0), dtype),
        }
    }

    pub fn expected(&self, inputs: &LayerInputs) -> LayerResults {
        match self {
            Self::Conv2d { spec, .. } => {
                let frames =
                    spec.frames(&self.shapes()[0], spikenorm_core::StepMode::Single).expect("a valid shape");
                conv2d(spec, frames, inputs)
            }
            Self::Linear { spec, .. } => linear(spec.in_features, spec.out_features, inputs),
        }
    }
}

/// Steps of both passes and the scratch memory they need, whichever the layer is.
enum Plan {
    Conv2d(Conv2dPlan),
    Linear(LinearPlan),
}

impl Plan {
    fn new(case: &LayerCase) -> Self {
        match &case.layer {
            Layer::Conv2d { spec, .. } => {
                let shape = &case.layer.shapes()[0];
                let frames = spec.frames(shape, spikenorm_core::StepMode::Single).unwrap();
                Self::Conv2d(Conv2dPlan::new(spec, frames, case.dtype, case.budget).unwrap())
            }
            Layer::Linear { spec, rows } => {
                Self::Linear(LinearPlan::new(spec, *rows, case.dtype, case.budget).unwrap())
            }
        }
    }

    fn scratch_bytes(&self) -> usize {
        match self {
            Self::Conv2d(plan) => plan.scratch_bytes(),
            Self::Linear(plan) => plan.scratch_bytes(),
        }
    }

    fn steps(&self, at: Conv2dAddresses) -> [Vec<Step>; 2] {
        match self {
            Self::Conv2d(plan) => [plan.forward(&at), plan.backward(&at)],
            Self::Linear(plan) => {
                let Conv2dAddresses { x, weight, bias, y, dx, weight_grad, bias_grad, scratch } = at;
                let at = LinearAddresses { x, weight, bias, y, dx, weight_grad, bias_grad, scratch };
                [plan.forward(&at), plan.backward(&at)]
            }
        }
    }
}

impl LayerCase {
    pub fn check(&self, emulator: &Emulator, schedules: u32) -> Result<Vec<Step>, String> {
        let seed = self
            .layer
            .shapes()
            .concat()
            .iter()
            .fold(1u64, |seed, &n| seed.wrapping_mul(31).wrapping_add(n as u64));
        let inputs = self.layer.inputs(self.dtype, self.bias, seed);
        let expected = self.layer.expected(&inputs);
        let (p, plan) = (self.dtype.parameter(), Plan::new(self));
        let own = |values: &[f64]| Buffer::new(values, self.dtype, self.offset);
        let small = |values: &[f64]| Buffer::new(values, p, self.offset.next_multiple_of(p.size()));
        let (x, dy, weight) = (own(&inputs.x), own(&inputs.dy), small(&inputs.weight));
        let bias = inputs.bias.as_ref().map(|bias| small(bias));
        let mut ran = Vec::new();
        let (mut first, mut first_alone) = (None, None);
        for schedule in 0..schedules {
            let scratch = Buffer::poisoned(plan.scratch_bytes().div_ceil(8), DType::F64, 0);
            let y = Buffer::poisoned(inputs.dy.len(), self.dtype, self.offset);
            let dx = Buffer::poisoned(inputs.x.len(), self.dtype, self.offset);
            let weight_grad = small(&vec![f64::NAN; inputs.weight.len()]);
            let bias_grad = bias.as_ref().map(|_| small(&vec![f64::NAN; expected.bias.len()]));
            let at = Conv2dAddresses {
                x: x.address(),
                weight: weight.address(),
                bias: address(&bias),
                y: y.address(),
                scratch: scratch.address(),
                ..Conv2dAddresses::default()
            };
            let [forward, _] = plan.steps(at);
            let grads = Conv2dAddresses {
                y: dy.address(),
                weight_grad: weight_grad.address(),
                bias_grad: address(&bias_grad),
                ..at
            };
            let [_, alone] = plan.steps(grads);
            let [_, backward] = plan.steps(Conv2dAddresses { dx: dx.address(), ..grads });
            run(emulator, &forward, schedule)?;
            let parameters: Vec<&Buffer> =
                [Some(&weight_grad), bias_grad.as_ref()].into_iter().flatten().collect();
            run(emulator, &alone, schedule)?;
            same_bits(&mut first_alone, &parameters, schedule)?;
            if dx.values().iter().any(|value| !value.is_nan()) {
                return Err("a backward without dx wrote it".into());
            }
            run(emulator, &backward, schedule)?;
            same_bits(&mut first, &[&[&y, &dx], &parameters[..]].concat(), schedule)?;
            same_bits(&mut first_alone, &parameters, schedule)
                .map_err(|why| format!("beside a backward without dx: {why}"))?;
            if schedule == 0 {
                compare("y", &y.values(), &expected.y, self.dtype, 0.0)?;
                compare("dx", &dx.values(), &expected.dx, self.dtype, 0.0)?;
                compare("dw", &weight_grad.values(), &expected.weight, p, 0.0)?;
                if let Some(bias_grad) = &bias_grad {
                    compare("db", &bias_grad.values(), &expected.bias, p, 0.0)?;
                }
                ran = [forward, backward].concat();
            }
        }
        Ok(ran)
    }
}

fn run(emulator: &Emulator, steps: &[Step], schedule: u32) -> Result<(), String> {
    steps.iter().try_for_each(|step| match step {
        Step::Launch(launch) => emulator.run(launch, schedule),
        Step::Product(product) => {
            multiply(product);
            Ok(())
        }
    })
}

/// A product on the host, in float64 and rounded once.
fn multiply(product: &Product) {
    let value = |matrix: &Matrix, row: usize, column: usize| {
        let (row, column) = if matrix.transposed { (column, row) } else { (row, column) };
        read(matrix.address, row * matrix.stride + column, product.dtype)
    };
    for row in 0..product.rows {
        for column in 0..product.columns {
            let mut sum = if product.accumulate { value(&product.out, row, column) } else { 0.0 };
            for k in 0..product.inner {
                sum += value(&product.left, row, k) * value(&product.right, k, column);
            }
            write(product.out.address, row * product.out.stride + column, product.dtype, sum);
        }
    }
}

fn read(address: u64, index: usize, dtype: DType) -> f64 {
    // SAFETY: the plan lays its matrices within the buffers of the case, which the sanitizer test checks.
    unsafe {
        match dtype {
            DType::F64 => (address as *const f64).add(index).read_unaligned(),
            _ => (address as *const f32).add(index).read_unaligned().into(),
        }
    }
}

fn write(address: u64, index: usize, dtype: DType, value: f64) {
    // SAFETY: as in `read`; the buffers are the case's own, and nothing else runs meanwhile.
    unsafe {
        match dtype {
            DType::F64 => (address as *mut f64).add(index).write_unaligned(value),
            _ => (address as *mut f32).add(index).write_unaligned(value as f32),
        }
    }
}
