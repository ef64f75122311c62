//! NeuNorm of one time step of a tensor that stays in a core's first-level cache: the formulas of `neu_norm`, without
//! strips and tasks, which would cost more than the arithmetic. Pixels go in groups whose sums stay in registers.
#![allow(
    clippy::needless_range_loop,
    reason = "arrays of one length, side by side: an index reads better than zips of five"
)]

use spikenorm_core::{
    DType, Grid, NeuNormForward, NeuNormGrads, NeuNormOutput, NeuNormSaved, NeuNormSpec, Result,
};

use super::{BackwardInputs, Values, grads, output, take_grads};
use crate::HostMemory;
use crate::backend::{Cpu, CpuTensor};
use crate::element::{Element, Real};
use crate::simd::{beyond_baseline, vectorized};

/// Bytes of an input up to which this is the faster way.
const TINY_BYTES: usize = 32 << 10;
/// Pixels of a group: two registers of float32, half of one for what is left of a row, and then one by one.
const WIDE: usize = 16;
const NARROW: usize = 4;

/// Whether a pass over `grid` is to be done here, as `element::fast::F32`. Calls this small are rare in other types and on
/// processors of the baseline: loops for them would take tens of kilobytes of the binary each.
pub fn fits(dtype: DType, grid: Grid) -> bool {
    dtype == DType::F32
        && beyond_baseline()
        && grid.t == 1
        && grid.n > 0
        && grid.c > 0
        && grid.s > 0
        && grid.len() * dtype.size() <= TINY_BYTES
}

/// W pixels side by side, from `p0` on. How many is known when compiled: they are loaded then and not copied.
#[derive(Clone, Copy)]
struct Group<const W: usize> {
    p0: usize,
}

impl<const W: usize> Group<W> {
    /// Its values of a row, which are then arithmetic on registers.
    #[inline(always)]
    fn load<E: Copy + Default>(self, data: &[E], row: usize, s: usize) -> [E; W] {
        let mut values = [E::default(); W];
        values.copy_from_slice(&data[row * s + self.p0..][..W]);
        values
    }

    #[inline(always)]
    fn store<E: Copy>(self, values: &[E; W], data: &mut [E], row: usize, s: usize) {
        data[row * s + self.p0..][..W].copy_from_slice(values);
    }
}

trait ByGroup {
    /// All channels of sample `n`.
    fn group<const W: usize>(&mut self, n: usize, group: Group<W>);
}

#[inline(always)]
fn every_group(Grid { n: samples, s, .. }: Grid, pass: &mut impl ByGroup) {
    let (wide, narrow) = (s / WIDE * WIDE, s / NARROW * NARROW);
    for n in 0..samples {
        for p0 in (0..wide).step_by(WIDE) {
            pass.group(n, Group::<WIDE> { p0 });
        }
        for p0 in (wide..narrow).step_by(NARROW) {
            pass.group(n, Group::<NARROW> { p0 });
        }
        for p0 in narrow..s {
            pass.group(n, Group::<1> { p0 });
        }
    }
}

struct ForwardPass<'a, E: Element> {
    spec: &'a NeuNormSpec,
    grid: Grid,
    x: &'a [E],
    weight: &'a [E::Acc],
    initial: Option<&'a [E::Acc]>,
    y: &'a mut [E],
    state: &'a mut [E::Acc],
}

vectorized! {
    fn sweep_forward<'a, E: Element>(pass: ForwardPass<'a, E>) {
        let (grid, mut pass) = (pass.grid, pass);
        every_group(grid, &mut pass);
    }
}

impl<E: Element> ByGroup for ForwardPass<'_, E> {
    #[inline(always)]
    fn group<const W: usize>(&mut self, n: usize, group: Group<W>) {
        let Self { spec, grid: Grid { c: channels, s, .. }, x, weight, .. } = *self;
        let (keep, gain) = (E::Acc::from_f64(spec.k), E::Acc::from_f64(spec.input_gain()));
        let mut total = [E::Acc::default(); W];
        for c in 0..channels {
            let x = group.load(x, n * channels + c, s);
            for i in 0..W {
                total[i] += x[i].load();
            }
        }
        let mut now = self.initial.map_or([E::Acc::default(); W], |initial| group.load(initial, n, s));
        for i in 0..W {
            now[i] = keep * now[i] + gain * total[i];
        }
        group.store(&now, self.state, n, s);
        for c in 0..channels {
            let x = group.load(x, n * channels + c, s);
            let w = group.load(weight, if spec.shared { 0 } else { c }, s);
            let mut out = [E::default(); W];
            for i in 0..W {
                out[i] = E::store(x[i].load() - w[i] * now[i]);
            }
            group.store(&out, self.y, n * channels + c, s);
        }
    }
}

pub fn forward<E: Element>(call: &NeuNormForward<'_, HostMemory>) -> Result<NeuNormOutput<HostMemory>> {
    let (spec, grid) = (call.spec, call.grid);
    let pixels = grid.n * grid.s;
    let mut y = HostMemory::take(grid.len() * size_of::<E>())?;
    let mut state = HostMemory::take(pixels * size_of::<E::Acc>())?;
    let (x, weight) = (Values::of(call.x)?, Values::of(call.weight)?);
    let initial = call.state.map(Values::of).transpose()?;
    sweep_forward(ForwardPass {
        spec,
        grid,
        x: x.slice::<E>(),
        weight: weight.slice(),
        initial: initial.as_ref().map(Values::slice),
        y: &mut y.as_mut_slice::<E>()[..grid.len()],
        state: &mut state.as_mut_slice::<E::Acc>()[..pixels],
    });
    output(call, y, state)
}

struct BackwardPass<'a, E: Element> {
    spec: &'a NeuNormSpec,
    grid: Grid,
    dy: &'a [E],
    weight: &'a [E::Acc],
    state: &'a [E::Acc],
    carried: Option<&'a [E::Acc]>,
    dx: &'a mut [E],
    weight_grad: &'a mut [E::Acc],
    state_grad: &'a mut [E::Acc],
}

vectorized! {
    fn sweep_backward<'a, E: Element>(pass: BackwardPass<'a, E>) {
        let (grid, mut pass) = (pass.grid, pass);
        pass.weight_grad.fill(E::Acc::default());
        every_group(grid, &mut pass);
    }
}

impl<E: Element> ByGroup for BackwardPass<'_, E> {
    #[inline(always)]
    fn group<const W: usize>(&mut self, n: usize, group: Group<W>) {
        let Self { spec, grid: Grid { c: channels, s, .. }, dy, weight, .. } = *self;
        let (keep, gain) = (E::Acc::from_f64(spec.k), E::Acc::from_f64(spec.input_gain()));
        let now = group.load(self.state, n, s);
        let mut total = [E::Acc::default(); W];
        for c in 0..channels {
            let row = if spec.shared { 0 } else { c };
            let w = group.load(weight, row, s);
            let dy = group.load(dy, n * channels + c, s);
            let mut dw = group.load(self.weight_grad, row, s);
            for i in 0..W {
                let g = dy[i].load();
                total[i] += w[i] * g;
                dw[i] -= g * now[i];
            }
            group.store(&dw, self.weight_grad, row, s);
        }
        // δ = −Σ w·dy + (gradient that came from later steps), which is carried on times k.
        let mut delta = self.carried.map_or([E::Acc::default(); W], |carried| group.load(carried, n, s));
        for i in 0..W {
            delta[i] -= total[i];
        }
        for c in 0..channels {
            let dy = group.load(dy, n * channels + c, s);
            let mut out = [E::default(); W];
            for i in 0..W {
                out[i] = E::store(dy[i].load() + gain * delta[i]);
            }
            group.store(&out, self.dx, n * channels + c, s);
        }
        for delta in &mut delta {
            *delta *= keep;
        }
        group.store(&delta, self.state_grad, n, s);
    }
}

pub fn backward<E: Element>(
    saved: &NeuNormSaved<HostMemory>,
    dy: &CpuTensor,
    carry: Option<&CpuTensor>,
) -> Result<NeuNormGrads<HostMemory>> {
    let (spec, grid) = (&saved.spec, saved.grid);
    let [mut dx, mut state_grad] = take_grads(grid, E::DTYPE)?;
    let weight_grad = Cpu.allocate(&spec.weight_shape(), <E::Acc as Element>::DTYPE)?;
    let inputs = BackwardInputs::of(saved, dy, carry)?;
    sweep_backward(BackwardPass {
        spec,
        grid,
        dy: inputs.dy.slice::<E>(),
        weight: inputs.weight.slice(),
        state: inputs.states.slice(),
        carried: inputs.carried(),
        dx: &mut dx.as_mut_slice::<E>()[..grid.len()],
        weight_grad: weight_grad.memory.write()?.slice(0, weight_grad.len()),
        state_grad: &mut state_grad.as_mut_slice::<E::Acc>()[..grid.n * grid.s],
    });
    Ok(grads(saved, E::DTYPE, dx, weight_grad, state_grad))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use spikenorm_core::norm::Layout;

    use super::*;
    use crate::element::with_float;
    use crate::neu_norm::{backward as any_backward, forward as any_forward};
    use crate::tensor_ops::copy_of;
    use crate::tensor_ops::{fill, read_f64, write_f64};

    fn noise(seed: u64, shape: &[usize], dtype: DType) -> CpuTensor {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let tensor = Cpu.allocate(shape, dtype).expect("allocates");
        let values: Vec<f64> = (0..tensor.len())
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
            })
            .collect();
        write_f64(&tensor, &values).expect("writes");
        tensor
    }

    proptest! {
        #[test]
        fn one_step_is_what_the_passes_for_any_size_make_of_it(
            n in 1usize..4, c in 1usize..9, height in 1usize..6, width in 1usize..9,
            shared: bool, starts_anew: bool, ends: bool,
            dtype in prop_oneof![Just(DType::F64), Just(DType::F32), Just(DType::F16), Just(DType::BF16)],
            seed in 1u64..1000,
        ) {
            let narrow = dtype.parameter();
            let spec = NeuNormSpec { channels: c, height, width, layout: Layout::Contiguous, k: 0.7, shared };
            let grid = Grid { t: 1, n, c, s: height * width };
            let shape = [n, c, height, width];
            let (x, dy) = (noise(seed, &shape, dtype), noise(seed + 1, &shape, dtype));
            let weight = noise(seed + 2, &spec.weight_shape(), narrow);
            let small = [n, 1, height, width];
            let state = (!starts_anew).then(|| noise(seed + 3, &small, narrow));
            let carry = (!ends).then(|| noise(seed + 4, &small, narrow));
            let run = |tiny: bool| -> Result<[CpuTensor; 5]> {
                let weight = copy_of(&weight)?;
                let call = NeuNormForward {
                    spec: &spec, grid, x: &x, weight: &weight, state: state.as_ref(), record: true,
                };
                with_float!(dtype, E => {
                    let output = if tiny { forward::<E>(&call) } else { any_forward::forward::<E>(&call) }?;
                    let saved = output.saved.expect("recorded");
                    // An optimiser may step in between.
                    fill(&weight, 99.0)?;
                    let grads = if tiny {
                        backward::<E>(&saved, &dy, carry.as_ref())
                    } else {
                        any_backward::backward::<E>(&saved, &dy, carry.as_ref())
                    }?;
                    Ok([output.y, output.state, grads.dx, grads.weight, grads.state])
                })
            };
            let tolerance = match dtype {
                DType::F64 => 1e-12,
                DType::F32 => 2e-6,
                DType::F16 => 1.0 / 512.0,
                _ => 1.0 / 64.0,
            };
            let names = ["y", "state", "dx", "dw", "gradient of the state"];
            let (tiny, general) = (run(true).expect("runs"), run(false).expect("runs"));
            for ((what, got), expected) in names.iter().zip(tiny).zip(general) {
                prop_assert_eq!(&got.shape, &expected.shape, "{}", what);
                let (got, expected) = (read_f64(&got).expect("reads"), read_f64(&expected).expect("reads"));
                for (got, expected) in got.iter().zip(&expected) {
                    let error = (got - expected).abs() / expected.abs().max(1.0);
                    prop_assert!(error <= tolerance, "{what}: expected {expected:e}, got {got:e}");
                }
            }
        }
    }
}
