//! One case of the norm family: plan, launch, compare.

use spikenorm_core::norm::{CudaDevice, CudaPass, CudaPlan, NormSpec};
use spikenorm_core::{DType, Grid};
use spikenorm_cuda::launches::{Workspace, norm_launches};
use spikenorm_cuda::params::NormParams;

use super::buffer::{Buffer, address, rounded, transposed};
use super::case::{Case, Data, Random, Variant};
use super::emulator::{Emulator, SCHEDULES};
use super::reference::{Expected, Inputs, norm};
use super::tolerance::compare;
use spikenorm_core::norm::{Layout, Rows};

pub struct NormCase<'a> {
    pub case: &'a Case,
    pub spec: NormSpec,
    pub inputs: Inputs,
    pub expected: Expected,
    /// The same under running statistics.
    pub frozen: Expected,
}

impl<'a> NormCase<'a> {
    pub fn new(case: &'a Case, seed: u64) -> Self {
        let spec = case.variant.spec(case.grid);
        let mut random = Random::new(seed);
        let inputs = inputs(case, &spec, &mut random);
        let expected = norm(&spec, case.grid, &inputs, true);
        let frozen = norm(&spec, case.grid, &inputs, false);
        Self { case, spec, inputs, expected, frozen }
    }

    pub fn plans(&self, pass: CudaPass, device: &CudaDevice) -> Vec<CudaPlan> {
        let case = self.case;
        CudaPlan::all(pass, case.grid, case.layout, case.dtype, case.alignment(), device).unwrap()
    }

    fn parameter(&self) -> DType {
        self.case.dtype.parameter()
    }

    /// Values in the memory order of the case.
    fn stored(&self, values: &[f64]) -> Buffer {
        let Grid { c, s, .. } = self.case.grid;
        let values =
            if self.case.layout == Layout::ChannelsLast { transposed(values, s, c) } else { values.to_vec() };
        Buffer::new(&values, self.case.dtype, self.case.offset)
    }

    fn read(&self, buffer: &Buffer) -> Vec<f64> {
        let Grid { c, s, .. } = self.case.grid;
        let values = buffer.values();
        if self.case.layout == Layout::ChannelsLast { transposed(&values, c, s) } else { values }
    }

    fn small(&self, values: &Option<Vec<f64>>) -> Option<Buffer> {
        values.as_ref().map(|values| Buffer::new(values, self.parameter(), 0))
    }

    /// y from batch statistics, with everything else a training forward writes; under every schedule.
    pub fn check_forward(&self, emulator: &Emulator, plan: &CudaPlan, schedules: u32) -> Result<(), String> {
        let (p, e) = (self.parameter(), &self.expected);
        let rows_c = self.spec.statistics.count(self.case.grid.t) * self.case.grid.c;
        let work = Work::new(plan, &self.spec, false);
        let mut first: Option<Vec<u8>> = None;
        for schedule in 0..schedules.min(SCHEDULES) {
            let x = self.stored(&self.inputs.x);
            let (weight, bias, scale) = self.affine();
            let y = Buffer::poisoned(self.inputs.x.len(), self.case.dtype, self.case.offset);
            let statistics = Buffer::poisoned(3 * rows_c, p, 0);
            let running_mean = Buffer::new(&self.inputs.running_mean, p, 0);
            let running_var = Buffer::new(&self.inputs.running_var, p, 0);
            let kept = [&weight, &bias, &scale]
                .map(|given| given.as_ref().map(|given| Buffer::poisoned(given.values().len(), p, 0)));
            let counters =
                Buffer::from_bytes(bytemuck::cast_slice(&self.inputs.counters).to_vec(), DType::I64);
            let params = NormParams {
                x: x.address(),
                out: y.address(),
                weight: address(&weight),
                bias: address(&bias),
                scale: address(&scale),
                statistics: statistics.address(),
                running_mean: running_mean.address(),
                running_var: running_var.address(),
                counters: counters.address(),
                momentum: self.inputs.momentum.unwrap_or(f64::NAN),
                weight_out: address(&kept[0]),
                bias_out: address(&kept[1]),
                scale_out: address(&kept[2]),
                ..work.addresses(NormParams::new(&self.spec, plan, true))
            };
            run(emulator, plan, &params, schedule)?;
            for (kept, given) in kept.iter().zip([&weight, &bias, &scale]) {
                if kept.as_ref().map(Buffer::bits) != given.as_ref().map(Buffer::bits) {
                    return Err("a parameter is not kept as it was".into());
                }
            }
            let outputs = [&y, &statistics, &running_mean, &running_var, &counters];
            same_bits(&mut first, &outputs, schedule)?;
            if schedule == 0 {
                compare("y", &self.read(&y), &e.y, self.case.dtype, 0.0)?;
                let found = statistics.values();
                let mean: Vec<f64> = (0..rows_c).map(|i| found[i] + found[rows_c + i]).collect();
                compare("mean", &mean, &e.mean, p, 0.0)?;
                if matches!(self.case.data, Data::Level) {
                    self.check_mean_to_the_last_digit(&mean)?;
                }
                compare("inverse", &found[2 * rows_c..], &e.inverse, p, 0.0)?;
                compare("running_mean", &running_mean.values(), &e.running_mean, p, 0.0)?;
                compare("running_var", &running_var.values(), &e.running_var, p, 0.0)?;
                let counted: Vec<i64> = self.inputs.counters.iter().map(|count| count + 1).collect();
                if bytemuck::cast_slice::<_, u8>(&counted) != counters.bits() {
                    return Err(format!("num_batches_tracked: not {counted:?}"));
                }
            }
        }
        Ok(())
    }

    /// What the deviations from it add up to is the gradient of a weight under a gradient of one everywhere.
    fn check_mean_to_the_last_digit(&self, mean: &[f64]) -> Result<(), String> {
        let e = &self.expected;
        for (i, mean) in mean.iter().enumerate() {
            let off = ((mean - e.mean[i]) - e.mean_low[i]) * e.inverse[i];
            if off.abs() > 1e-10 {
                return Err(format!("mean[{i}] is off by {off:e} deviations"));
            }
        }
        Ok(())
    }

    /// y from the running statistics, which are saved for a backward.
    pub fn check_frozen_forward(
        &self,
        emulator: &Emulator,
        plan: &CudaPlan,
        schedules: u32,
    ) -> Result<(), String> {
        let p = self.parameter();
        let rows_c = self.spec.statistics.count(self.case.grid.t) * self.case.grid.c;
        let work = Work::new(plan, &self.spec, false);
        let mut first = None;
        for schedule in 0..schedules.min(SCHEDULES) {
            let x = self.stored(&self.inputs.x);
            let (weight, bias, scale) = self.affine();
            let y = Buffer::poisoned(self.inputs.x.len(), self.case.dtype, self.case.offset);
            let statistics = Buffer::poisoned(3 * rows_c, p, 0);
            let running_mean = Buffer::new(&self.inputs.running_mean, p, 0);
            let running_var = Buffer::new(&self.inputs.running_var, p, 0);
            let params = NormParams {
                x: x.address(),
                out: y.address(),
                weight: address(&weight),
                bias: address(&bias),
                scale: address(&scale),
                statistics: statistics.address(),
                running_mean: running_mean.address(),
                running_var: running_var.address(),
                ..work.addresses(NormParams::new(&self.spec, plan, false))
            };
            run(emulator, plan, &params, schedule)?;
            same_bits(&mut first, &[&y, &statistics], schedule)?;
            if schedule == 0 {
                compare("frozen y", &self.read(&y), &self.frozen.y, self.case.dtype, 0.0)?;
                compare("frozen mean", &statistics.values()[..rows_c], &self.frozen.mean, p, 0.0)?;
                compare("frozen inverse", &statistics.values()[2 * rows_c..], &self.frozen.inverse, p, 0.0)?;
                compare("unmoved", &running_mean.values(), &self.inputs.running_mean, p, 0.0)?;
            }
        }
        Ok(())
    }

    /// dx and the parameters' gradients, after a forward on batch or running statistics.
    pub fn check_backward(
        &self,
        emulator: &Emulator,
        plan: &CudaPlan,
        batch_statistics: bool,
        schedules: u32,
    ) -> Result<(), String> {
        let p = self.parameter();
        let e = if batch_statistics { &self.expected } else { &self.frozen };
        let work = Work::new(plan, &self.spec, self.inputs.scale.is_some());
        // As a forward leaves them: the mean in two parts of the parameters' dtype.
        let high = rounded(&e.mean, p);
        let low: Vec<f64> = (0..high.len()).map(|i| (e.mean[i] - high[i]) + e.mean_low[i]).collect();
        let saved = [high, low, e.inverse.clone()].concat();
        let like = |values: &Vec<f64>| (!values.is_empty()).then(|| Buffer::poisoned(values.len(), p, 0));
        let mut first = None;
        for schedule in 0..schedules.min(SCHEDULES) {
            let x = self.stored(&self.inputs.x);
            let dy = self.stored(&self.inputs.dy);
            let (weight, bias, scale) = self.affine();
            let statistics = Buffer::new(&saved, p, 0);
            let dx = Buffer::poisoned(self.inputs.x.len(), self.case.dtype, self.case.offset);
            let (weight_grad, bias_grad, scale_grad) = (like(&e.weight), like(&e.bias), like(&e.scale));
            let params = NormParams {
                x: x.address(),
                dy: dy.address(),
                out: dx.address(),
                weight: address(&weight),
                bias: address(&bias),
                scale: address(&scale),
                statistics: statistics.address(),
                weight_out: address(&weight_grad),
                bias_out: address(&bias_grad),
                scale_out: address(&scale_grad),
                ..work.addresses(NormParams::new(&self.spec, plan, batch_statistics))
            };
            run(emulator, plan, &params, schedule)?;
            let grads = [
                (&weight_grad, &e.weight, "dweight"),
                (&bias_grad, &e.bias, "dbias"),
                (&scale_grad, &e.scale, "dscale"),
            ];
            let mut outputs = vec![&dx];
            outputs.extend(grads.iter().filter_map(|(grad, ..)| grad.as_ref()));
            same_bits(&mut first, &outputs, schedule)?;
            if schedule == 0 {
                // Nothing is left of a gradient that is the same everywhere.
                let floor = if matches!(self.case.data, Data::Level) { 1e-3 } else { 0.0 };
                compare("dx", &self.read(&dx), &e.dx, self.case.dtype, floor)?;
                let largest = self.inputs.dy.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                for (grad, expected, name) in grads {
                    let got = grad.as_ref().map(Buffer::values).unwrap_or_default();
                    compare(name, &got, expected, p, largest)?;
                }
            }
        }
        Ok(())
    }

    fn affine(&self) -> (Option<Buffer>, Option<Buffer>, Option<Buffer>) {
        (self.small(&self.inputs.weight), self.small(&self.inputs.bias), self.small(&self.inputs.scale))
    }
}

/// Scratch memory, kept over the launches of all schedules as a launcher keeps it over steps.
struct Work {
    slots: Buffer,
    row_means: Buffer,
    scale_terms: Buffer,
    barriers: Buffer,
}

impl Work {
    fn new(plan: &CudaPlan, spec: &NormSpec, scale_gradient: bool) -> Self {
        let sizes = Workspace::of_norm(plan, spec.statistics, scale_gradient);
        Self {
            slots: Buffer::poisoned(sizes.slots, DType::F64, 0),
            row_means: Buffer::poisoned(sizes.row_means, DType::F64, 0),
            scale_terms: Buffer::poisoned(sizes.scale_terms, DType::F64, 0),
            barriers: Buffer::zeroed_words(sizes.barriers),
        }
    }

    fn addresses(&self, params: NormParams) -> NormParams {
        NormParams {
            slots: self.slots.address(),
            row_means: self.row_means.address(),
            scale_terms: self.scale_terms.address(),
            barriers: self.barriers.address(),
            ..params
        }
    }
}

fn run(emulator: &Emulator, plan: &CudaPlan, params: &NormParams, schedule: u32) -> Result<(), String> {
    norm_launches(plan, params).iter().try_for_each(|launch| emulator.run(launch, schedule))
}

/// Outputs must have the same bits under every schedule.
pub fn same_bits(first: &mut Option<Vec<u8>>, outputs: &[&Buffer], schedule: u32) -> Result<(), String> {
    let bits: Vec<u8> = outputs.iter().flat_map(|buffer| buffer.bits().iter().copied()).collect();
    match first {
        None => *first = Some(bits),
        Some(first) if *first != bits => {
            let at = first.iter().zip(&bits).position(|(a, b)| a != b);
            return Err(format!("schedule {schedule} gives other bits than schedule 0, from byte {at:?}"));
        }
        Some(_) => {}
    }
    Ok(())
}

fn inputs(case: &Case, spec: &NormSpec, random: &mut Random) -> Inputs {
    let Grid { t, n, c, s } = case.grid;
    let p = case.dtype.parameter();
    let mut x = Vec::with_capacity(case.grid.len());
    for row in 0..t * n {
        for channel in 0..c {
            let (mean, deviation) = match case.data {
                Data::Far { mean, deviation } => (mean, deviation),
                Data::Drifting { mean, deviation } => (mean * (row / n) as f64, deviation),
                _ => (0.5 - 0.1 * (channel % 11) as f64, 1.0 + 0.2 * (channel % 5) as f64),
            };
            for _ in 0..s {
                x.push(match case.data {
                    Data::Spikes => f64::from(u8::from(random.unit() < 0.2)),
                    _ => mean + deviation * random.normal(),
                });
            }
        }
    }
    if let Data::Broken { channel, value } = case.data {
        x[((t * n - 1) * c + channel) * s + s / 2] = value;
    }
    let rows = |rows: Rows| rows.count(t) * c;
    let present = |given: Rows, values: Vec<f64>| given.is_present().then(|| rounded(&values, p));
    let weight = random.normals(
        rows(spec.weight),
        if case.variant == Variant::ThresholdDependent { 0.5 } else { 1.0 },
        0.3,
    );
    let bias = random.normals(rows(spec.bias), 0.1, 0.5);
    let dy = match case.data {
        Data::Level => vec![1.0; case.grid.len()],
        _ => random.normals(case.grid.len(), 0.05, 1.0),
    };
    Inputs {
        dy: rounded(&dy, case.dtype),
        weight: present(spec.weight, weight),
        bias: present(spec.bias, bias),
        scale: spec.time_scale.then(|| rounded(&random.normals(t, 1.0, 0.25), p)),
        running_mean: rounded(&random.normals(rows(spec.statistics), 0.2, 0.3), p),
        running_var: rounded(&(0..rows(spec.statistics)).map(|_| 0.5 + random.unit()).collect::<Vec<_>>(), p),
        counters: (0..spec.statistics.count(t) as i64).map(|row| 1 + 2 * row).collect(),
        momentum: (random.unit() < 0.5).then_some(0.3),
        x: rounded(&x, case.dtype),
    }
}
