//! `cargo bench -p spikenorm-cuda`: what every plan that is considered takes on this GPU, beside what the cost model
//! (crates/core/src/norm/cuda_cost.rs) takes it for. Whoever changes a kernel or the model looks here.
//!
//!     cargo bench -p spikenorm-cuda -- [--chosen] [--shape T,N,C,S]… [--dtype f32]… [--variant tebn] [--csv FILE]
//!
//! A row is one pass of one plan: microseconds per pass, by events around a CUDA graph of several passes over sets of
//! tensors that outgrow the second-level cache, the least of five replays. `--chosen` measures only the plans chosen.

#![allow(clippy::unwrap_used)]

use std::io::Write as _;

use spikenorm_core::norm::{CudaPass, CudaPlan, Layout, NormForward, NormSaved, NormSpec, Rows, Statistics};
use spikenorm_core::{DType, Grid, Result, Tensor};
use spikenorm_cuda::driver::{Cuda, DeviceMemory, Event, probe};

type CudaTensor = Tensor<DeviceMemory>;

/// Those of `npm run bench`, and what PyTorch's users would put beside them.
const SHAPES: [[usize; 4]; 12] = [
    [4, 32, 64, 3136],
    [4, 32, 64, 1024],
    [4, 32, 256, 64],
    [8, 16, 128, 256],
    [4, 8, 64, 3136],
    [10, 32, 256, 256],
    [4, 128, 512, 16],
    [4, 256, 512, 1],
    [4, 4, 32, 1568],
    [4, 128, 128, 1024],
    [4, 32, 256, 196],
    [4, 32, 512, 49],
];
/// More than the second-level cache of any GPU so far.
const BEYOND_CACHE: usize = 256 << 20;
const FEWEST_SETS: usize = 2;
const MOST_SETS: usize = 24;
const FEWEST_PASSES: usize = 6;
const REPLAYS: usize = 4;
const FAR_DEARER: f64 = 3.0;

struct Options {
    shapes: Vec<Grid>,
    dtypes: Vec<DType>,
    variant: String,
    chosen: bool,
    csv: Option<String>,
}

fn options() -> Options {
    let mut options =
        Options { shapes: vec![], dtypes: vec![], variant: "tebn".into(), chosen: false, csv: None };
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "--chosen" => options.chosen = true,
            "--csv" => options.csv = Some(value()),
            "--variant" => options.variant = value(),
            "--dtype" => options.dtypes.push(DType::from_name(&value()).unwrap()),
            "--shape" => {
                let numbers: Vec<usize> = value().split(',').map(|n| n.parse().unwrap()).collect();
                options.shapes.push(grid(numbers.try_into().expect("T,N,C,S")));
            }
            other => panic!("unknown option {other}"),
        }
    }
    if options.shapes.is_empty() {
        options.shapes = SHAPES.map(grid).to_vec();
    }
    if options.dtypes.is_empty() {
        options.dtypes = vec![DType::F32, DType::F16];
    }
    options
}

fn grid([t, n, c, s]: [usize; 4]) -> Grid {
    Grid { t, n, c, s }
}

/// TEBN has everything a pass may have to do; tdBN a weight and statistics over time; BNTT statistics per step.
fn spec(variant: &str, grid: Grid) -> NormSpec {
    let (statistics, weight, bias, time_scale) = match variant {
        "tebn" => (Rows::Shared, Rows::Shared, Rows::Shared, true),
        "tdbn" => (Rows::Shared, Rows::Shared, Rows::Shared, false),
        "bntt" => (Rows::PerStep, Rows::PerStep, Rows::Absent, false),
        other => panic!("--variant: tebn, tdbn or bntt, not {other}"),
    };
    NormSpec {
        spatial: 2,
        channels: grid.c,
        layout: Layout::Contiguous,
        steps: Some(grid.t),
        statistics,
        weight,
        bias,
        time_scale,
        eps: 1e-5,
    }
}

/// Numbers of about mean 0.3 and deviation 1: zeros would run faster than data does.
fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32
    };
    (0..count).map(|_| next() + next() + next() + next() - 1.7).collect()
}

fn upload(cuda: &Cuda, values: &[f32], shape: &[usize], dtype: DType) -> Result<CudaTensor> {
    let wide = cuda.upload(bytemuck::cast_slice(values), shape, DType::F32)?;
    let narrow = cuda.empty(shape, dtype)?;
    cuda.copy(&narrow, &wide)?;
    Ok(narrow)
}

struct Bench<'a> {
    cuda: &'a Cuda,
    grid: Grid,
    spec: NormSpec,
    x: Vec<CudaTensor>,
    dy: Vec<CudaTensor>,
    weight: Option<CudaTensor>,
    bias: Option<CudaTensor>,
    scale: Option<CudaTensor>,
}

impl<'a> Bench<'a> {
    fn new(cuda: &'a Cuda, grid: Grid, dtype: DType, variant: &str) -> Result<Self> {
        let spec = spec(variant, grid);
        let bytes = grid.len() * dtype.size();
        let sets = (BEYOND_CACHE / bytes / 2).clamp(FEWEST_SETS, MOST_SETS);
        let shape = [grid.t, grid.n, grid.c, grid.s];
        let values = random(grid.len(), 1);
        let first = upload(cuda, &values, &shape, dtype)?;
        let tensors = || (0..sets).map(|_| cuda.duplicate(&first)).collect::<Result<Vec<_>>>();
        let small = |rows: Rows| match rows {
            Rows::Absent => Ok(None),
            _ => {
                let shape = [rows.count(grid.t), grid.c];
                upload(cuda, &random(shape[0] * shape[1], 2), &shape, dtype.parameter()).map(Some)
            }
        };
        Ok(Self {
            cuda,
            grid,
            x: tensors()?,
            dy: tensors()?,
            weight: small(spec.weight)?,
            bias: small(spec.bias)?,
            scale: match spec.time_scale {
                true => Some(upload(cuda, &random(grid.t, 3), &[grid.t], dtype.parameter())?),
                false => None,
            },
            spec,
        })
    }

    fn call(&self, set: usize, record: bool) -> NormForward<'_, DeviceMemory> {
        NormForward {
            spec: &self.spec,
            grid: self.grid,
            x: &self.x[set],
            weight: self.weight.as_ref(),
            bias: self.bias.as_ref(),
            scale: self.scale.as_ref(),
            statistics: Statistics::Batch(None),
            record,
        }
    }

    /// Microseconds of one `pass(set)`; what the passes give is kept until all have run.
    fn time<T>(&self, pass: impl Fn(usize) -> Result<T>) -> Result<f64> {
        let sets = self.x.len();
        let passes = FEWEST_PASSES.max(sets);
        let (graph, kept) = self.cuda.capture(|| {
            let mut kept = Vec::new();
            for index in 0..passes {
                let given = pass(index % sets)?;
                if kept.len() < sets {
                    kept.push(given);
                } else {
                    kept[index % sets] = given;
                }
            }
            Ok(kept)
        })?;
        let (start, end) = (Event::new(self.cuda)?, Event::new(self.cuda)?);
        graph.replay()?;
        let mut least = f32::INFINITY;
        for _ in 0..REPLAYS {
            start.record()?;
            graph.replay()?;
            end.record()?;
            least = least.min(start.elapsed_ms(&end)?);
        }
        drop(kept);
        Ok(f64::from(least) * 1e3 / passes as f64)
    }

    fn saved(&self) -> Result<Vec<NormSaved<DeviceMemory>>> {
        (0..self.x.len())
            .map(|set| Ok(self.cuda.norm_forward(&self.call(set, true))?.saved.unwrap()))
            .collect()
    }
}

fn describe(plan: &CudaPlan, cuda: &Cuda) -> String {
    format!(
        "{:?},{},{},{},{},{},{},{},{},{},{},{},{},{},{}",
        plan.sync,
        plan.team,
        plan.teams,
        plan.tiles,
        plan.tile_channels,
        plan.segment,
        plan.segments,
        plan.chunk_rows,
        plan.chunks(),
        plan.steps,
        cuda.limits().resident(plan.threads, plan.offsets.total),
        plan.threads,
        plan.offsets.total,
        plan.parts,
        plan.copy_bytes
    )
}

fn run(cuda: &Cuda, options: &Options) -> Result<()> {
    let mut csv = options.csv.as_ref().map(|path| std::fs::File::create(path).unwrap());
    let header = "shape,dtype,pass,sync,team,teams,tiles,tile_channels,segment,segments,chunk_rows,chunks,steps,resident,threads,shared,parts,copy_bytes,cost,us,copy_us";
    if let Some(csv) = &mut csv {
        writeln!(csv, "{header}").unwrap();
    }
    println!("{}, {}, us per pass and percent of a copy of the same bytes", cuda.name()?, options.variant);
    println!("shape                 dtype  pass      chosen   %copy    best   %copy  plans  best plan");
    for &grid in &options.shapes {
        for &dtype in &options.dtypes {
            let bench = Bench::new(cuda, grid, dtype, &options.variant)?;
            let copy = bench.time(|set| cuda.duplicate(&bench.x[set]))?;
            let saved = bench.saved()?;
            let shape = format!("{},{},{},{}", grid.t, grid.n, grid.c, grid.s);
            for pass in [CudaPass::Forward, CudaPass::Backward] {
                let limits = cuda.limits();
                let mut plans = CudaPlan::all(pass, grid, Layout::Contiguous, dtype, 16, limits)?;
                let chosen = CudaPlan::new(pass, grid, Layout::Contiguous, dtype, 16, limits)?;
                if options.chosen {
                    plans = vec![chosen];
                }
                // One that is far dearer by the model is not looked at: it would take longer than all others.
                plans.retain(|plan| plan.cost(limits) < FAR_DEARER * chosen.cost(limits));
                let mut best = (f64::INFINITY, chosen);
                let mut of_chosen = f64::NAN;
                for plan in &plans {
                    let us = match pass {
                        CudaPass::Backward => {
                            bench.time(|set| cuda.norm_backward_by(&saved[set], &bench.dy[set], plan))?
                        }
                        _ => bench.time(|set| cuda.norm_forward_by(&bench.call(set, false), plan))?,
                    };
                    if *plan == chosen {
                        of_chosen = us;
                    }
                    if us < best.0 {
                        best = (us, *plan);
                    }
                    if let Some(csv) = &mut csv {
                        let cost = plan.cost(limits);
                        let plan = describe(plan, cuda);
                        writeln!(csv, "\"{shape}\",{dtype:?},{pass:?},{plan},{cost:.0},{us:.2},{copy:.2}")
                            .unwrap();
                    }
                }
                let floor = if pass == CudaPass::Backward { 1.5 * copy } else { copy };
                println!(
                    "{shape:<21} {:<6} {:<8} {of_chosen:>7.1} {:>6.0}% {:>7.1} {:>6.0}% {:>6}  {}",
                    format!("{dtype:?}"),
                    format!("{pass:?}"),
                    100.0 * floor / of_chosen,
                    best.0,
                    100.0 * floor / best.0,
                    plans.len(),
                    describe(&best.1, cuda)
                );
            }
        }
    }
    Ok(())
}

fn main() {
    if let Err(reason) = probe() {
        println!("SKIPPED: {reason}");
        return;
    }
    let options = options();
    let cuda = Cuda::open(0).unwrap();
    run(&cuda, &options).unwrap();
}
