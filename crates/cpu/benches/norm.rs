//! `cargo bench -p spikenorm-cpu`: the core of the layers without Node. `npm run bench` compares it with copies and with
//! PyTorch; this is for finding out what a change of the code does.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use spikenorm_core::norm::{Layout, NormForward, NormSpec, Rows, Statistics};
use spikenorm_core::{Backend, DType, Grid, NeuNormForward, NeuNormSpec, Tensor};
use spikenorm_cpu::{Cpu, HostMemory, empty_cache};

type CpuTensor = Tensor<HostMemory>;

/// T, N, C, H×W: a stage of a CIFAR net, a small dense stage, rows far too short for a vector.
const GRIDS: [Grid; 3] = [
    Grid { t: 4, n: 32, c: 64, s: 1024 },
    Grid { t: 4, n: 32, c: 256, s: 64 },
    Grid { t: 4, n: 128, c: 512, s: 16 },
];
const DTYPES: [DType; 2] = [DType::F32, DType::BF16];
const VARIANTS: [&str; 3] = ["BatchNorm", "TEBN", "BNTT"];

fn main() {
    divan::main();
}

#[derive(Clone, Copy)]
struct Case {
    variant: &'static str,
    grid: Grid,
    dtype: DType,
}

impl std::fmt::Display for Case {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Grid { t, n, c, s } = self.grid;
        write!(out, "{} {t},{n},{c},{s} {:?}", self.variant, self.dtype)
    }
}

fn cases() -> Vec<Case> {
    let all = VARIANTS.iter().flat_map(|&variant| GRIDS.map(|grid| (variant, grid)));
    all.flat_map(|(variant, grid)| DTYPES.map(|dtype| Case { variant, grid, dtype })).collect()
}

fn neu_norm_cases() -> Vec<Case> {
    let pairs = GRIDS.iter().flat_map(|&grid| DTYPES.map(|dtype| (grid, dtype)));
    pairs.map(|(grid, dtype)| Case { variant: "NeuNorm", grid, dtype }).collect()
}

/// Reproducible values of mean 0 and about deviation 1, rounded to the dtype.
fn values(shape: &[usize], dtype: DType, seed: u32) -> CpuTensor {
    let count = shape.iter().product();
    let mut state = seed | 1;
    let bytes = (0..count).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (((state >> 8) as f32 / (1 << 24) as f32 - 0.5) * 3.4).to_ne_bytes()
    });
    let wide = Cpu.upload(&bytes.collect::<Vec<u8>>(), shape, DType::F32).expect("allocates");
    let narrow = Cpu.empty(shape, dtype).expect("allocates");
    Cpu.copy(&narrow, &wide).expect("copies");
    narrow
}

impl Case {
    fn shape(&self) -> [usize; 4] {
        let Grid { t, n, c, s } = self.grid;
        [t, n, c, s]
    }

    /// U: one pass over the tensor.
    fn bytes(&self) -> usize {
        self.grid.len() * self.dtype.size()
    }

    fn spec(&self) -> NormSpec {
        let is_per_step = self.variant == "BNTT";
        let rows = if is_per_step { Rows::PerStep } else { Rows::Shared };
        NormSpec {
            spatial: 2,
            channels: self.grid.c,
            layout: Layout::Contiguous,
            steps: is_per_step.then_some(self.grid.t),
            statistics: rows,
            weight: rows,
            bias: if is_per_step { Rows::Absent } else { Rows::Shared },
            time_scale: self.variant == "TEBN",
            eps: 1e-5,
        }
    }
}

/// The input and the small tensors of a batch norm.
struct Inputs {
    case: Case,
    spec: NormSpec,
    x: CpuTensor,
    dy: CpuTensor,
    weight: CpuTensor,
    bias: Option<CpuTensor>,
    scale: Option<CpuTensor>,
}

impl Inputs {
    fn new(case: Case) -> Self {
        let spec = case.spec();
        let Grid { t, c, .. } = case.grid;
        Inputs {
            case,
            x: values(&case.shape(), case.dtype, 1),
            dy: values(&case.shape(), case.dtype, 2),
            weight: values(&[spec.weight.count(t), c], DType::F32, 3),
            bias: spec.bias.is_present().then(|| values(&[1, c], DType::F32, 4)),
            scale: spec.time_scale.then(|| values(&[t], DType::F32, 5)),
            spec,
        }
    }

    fn forward(&self) -> NormForward<'_, HostMemory> {
        NormForward {
            spec: &self.spec,
            grid: self.case.grid,
            x: &self.x,
            weight: Some(&self.weight),
            bias: self.bias.as_ref(),
            scale: self.scale.as_ref(),
            statistics: Statistics::Batch(None),
            record: true,
        }
    }
}

#[divan::bench(args = cases())]
fn forward(bencher: Bencher, case: &Case) {
    empty_cache(); // What other cases left would count towards what the pool keeps.
    let inputs = Inputs::new(*case);
    bencher
        .counter(BytesCount::new(2 * case.bytes()))
        .bench_local(|| Cpu.norm_forward(black_box(&inputs.forward())).expect("passes"));
}

#[divan::bench(args = cases())]
fn backward(bencher: Bencher, case: &Case) {
    empty_cache(); // What other cases left would count towards what the pool keeps.
    let inputs = Inputs::new(*case);
    let saved = Cpu.norm_forward(&inputs.forward()).expect("passes").saved.expect("recorded");
    bencher
        .counter(BytesCount::new(3 * case.bytes()))
        .bench_local(|| Cpu.norm_backward(black_box(&saved), &inputs.dy).expect("passes"));
}

fn neu_norm(case: &Case) -> (NeuNormSpec, CpuTensor, CpuTensor) {
    let Grid { c, s, .. } = case.grid;
    let spec =
        NeuNormSpec { channels: c, height: 1, width: s, layout: Layout::Contiguous, k: 0.9, shared: false };
    (spec, values(&case.shape(), case.dtype, 1), values(&[c, s], DType::F32, 2))
}

fn neu_norm_call<'a>(
    case: &Case,
    (spec, x, weight): &'a (NeuNormSpec, CpuTensor, CpuTensor),
) -> NeuNormForward<'a, HostMemory> {
    NeuNormForward { spec, grid: case.grid, x, weight, state: None, record: true }
}

#[divan::bench(args = neu_norm_cases())]
fn neu_norm_forward(bencher: Bencher, case: &Case) {
    empty_cache();
    let inputs = neu_norm(case);
    bencher
        .counter(BytesCount::new(2 * case.bytes()))
        .bench_local(|| Cpu.neu_norm_forward(black_box(&neu_norm_call(case, &inputs))).expect("passes"));
}

#[divan::bench(args = neu_norm_cases())]
fn neu_norm_backward(bencher: Bencher, case: &Case) {
    empty_cache();
    let inputs = neu_norm(case);
    let saved = Cpu.neu_norm_forward(&neu_norm_call(case, &inputs)).expect("passes").saved.expect("recorded");
    let dy = values(&case.shape(), case.dtype, 3);
    bencher
        .counter(BytesCount::new(2 * case.bytes()))
        .bench_local(|| Cpu.neu_norm_backward(black_box(&saved), &dy, None).expect("passes"));
}
