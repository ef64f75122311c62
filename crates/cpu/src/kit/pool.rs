//! Pooling on the CPU: planes in parallel, each by plain loops over its windows.

use bytemuck::Pod;
use spikenorm_core::kit::{AvgPoolSaved, Frames, LayerOutput, MaxPoolSaved, PoolSpec, Window};
use spikenorm_core::{DType, Result, workspace};

use crate::HostMemory;
use crate::backend::CpuTensor;
use crate::element::Real;
use crate::parallel::for_each;

/// Values of a task's input.
const TASK_VALUES: usize = 1 << 14;

/// Planes of a task.
fn planes(frames: Frames) -> usize {
    (TASK_VALUES / frames.input_plane().max(1)).max(1)
}

/// The part of a window at output position `at` that lies in the image: along one axis, positions in the
/// window `from..to`, the first of which is at image coordinate `start`.
#[derive(Clone, Copy)]
struct Span {
    from: usize,
    to: usize,
    start: usize,
}

impl Span {
    #[inline(always)]
    fn new(window: &Window, axis: usize, size: usize, at: usize) -> Self {
        let first = at * window.stride[axis];
        let padding = window.padding[axis];
        let from = padding.saturating_sub(first);
        let to = window.kernel[axis].min((size + padding).saturating_sub(first)).max(from);
        Self { from, to, start: first + from - padding.min(first + from) }
    }
}

/// Calls `visit(output index, vertical span, horizontal span)` for every window of a plane.
#[inline(always)]
fn windows(window: &Window, frames: Frames, mut visit: impl FnMut(usize, Span, Span)) {
    for y in 0..frames.output[0] {
        let vertical = Span::new(window, 0, frames.input[0], y);
        for x in 0..frames.output[1] {
            let horizontal = Span::new(window, 1, frames.input[1], x);
            visit(y * frames.output[1] + x, vertical, horizontal);
        }
    }
}

/// Calls `visit(image index, window index)` for every value a window covers.
#[inline(always)]
fn covered(window: &Window, frames: Frames, v: Span, h: Span, mut visit: impl FnMut(usize, usize)) {
    for i in v.from..v.to {
        let row = (v.start + i - v.from) * frames.input[1] + h.start;
        for j in h.from..h.to {
            visit(row + j - h.from, i * window.kernel[1] + j);
        }
    }
}

/// 1/(kernel area).
fn share<A: Real>(spec: &PoolSpec) -> A {
    A::from_f64(1.0 / (spec.window.kernel[0] * spec.window.kernel[1]) as f64)
}

pub fn average<A: Real>(spec: &PoolSpec, frames: Frames, x: &CpuTensor) -> Result<CpuTensor> {
    let (inputs, outputs) = (frames.input_plane(), frames.output_plane());
    let total = frames.samples * frames.channels;
    let mut out = HostMemory::take(total * outputs * size_of::<A>())?;
    let memory = x.memory.read()?;
    let values = memory.slice::<A>(x.offset, total * inputs);
    let share = share::<A>(spec);
    let ys = out.as_mut_slice::<A>()[..total * outputs].chunks_mut(planes(frames) * outputs);
    let tasks = workspace::collect(values.chunks(planes(frames) * inputs).zip(ys))?;
    for_each(size_of_val(values), tasks, |(x, y)| {
        for (x, y) in x.chunks_exact(inputs).zip(y.chunks_exact_mut(outputs)) {
            windows(&spec.window, frames, |out, v, h| {
                let mut sum = A::default();
                covered(&spec.window, frames, v, h, |at, _| sum += x[at]);
                y[out] = sum * share;
            });
        }
        Ok(())
    })?;
    Ok(CpuTensor::new(out, &frames.output_shape(&x.shape, frames.channels), A::DTYPE))
}

pub fn average_backward<A: Real>(saved: &AvgPoolSaved, dy: &CpuTensor) -> Result<CpuTensor> {
    let share = share::<A>(&saved.spec);
    let window = &saved.spec.window;
    spread::<A, u8>(saved.frames, &saved.input_shape, dy, &[], 0, |dx, dy, _| {
        windows(window, saved.frames, |out, v, h| {
            let part = dy[out] * share;
            covered(window, saved.frames, v, h, |at, _| dx[at] += part);
        });
    })
}

pub fn maximum<A: Real>(
    spec: &PoolSpec,
    frames: Frames,
    x: &CpuTensor,
    record: bool,
) -> Result<LayerOutput<HostMemory, MaxPoolSaved<HostMemory>>> {
    let total = frames.samples * frames.channels * frames.output_plane();
    let size = spec.index_bytes();
    let mut indices = HostMemory::take(total * size)?;
    let y = if size == 1 {
        maximum_with::<A, u8>(spec, frames, x, &mut indices, |place| place as u8)?
    } else {
        maximum_with::<A, u32>(spec, frames, x, &mut indices, |place| place as u32)?
    };
    let saved = record.then(|| MaxPoolSaved {
        spec: spec.clone(),
        frames,
        input_shape: x.shape.clone(),
        dtype: A::DTYPE,
        indices: CpuTensor::new(indices, &[total, size], DType::U8),
    });
    Ok(LayerOutput { y, saved })
}

fn maximum_with<A: Real, I: Pod + Send>(
    spec: &PoolSpec,
    frames: Frames,
    x: &CpuTensor,
    indices: &mut HostMemory,
    index: impl Fn(usize) -> I + Sync + Send,
) -> Result<CpuTensor> {
    let (inputs, outputs) = (frames.input_plane(), frames.output_plane());
    let total = frames.samples * frames.channels;
    let mut out = HostMemory::take(total * outputs * size_of::<A>())?;
    let memory = x.memory.read()?;
    let values = memory.slice::<A>(x.offset, total * inputs);
    let ys = out.as_mut_slice::<A>()[..total * outputs].chunks_mut(planes(frames) * outputs);
    let places = indices.as_mut_slice::<I>()[..total * outputs].chunks_mut(planes(frames) * outputs);
    let tasks = workspace::collect(values.chunks(planes(frames) * inputs).zip(ys.zip(places)))?;
    for_each(size_of_val(values), tasks, |(x, (y, places))| {
        let outputs = y.chunks_exact_mut(outputs).zip(places.chunks_exact_mut(outputs));
        for (x, (y, places)) in x.chunks_exact(inputs).zip(outputs) {
            windows(&spec.window, frames, |out, v, h| {
                let mut best: Option<A> = None;
                covered(&spec.window, frames, v, h, |at, place| {
                    let value = x[at];
                    // NaN wins, and stays, because no value compares above it.
                    if best.is_none_or(|best| value > best || value.to_f64().is_nan()) {
                        best = Some(value);
                        y[out] = x[at];
                        places[out] = index(place);
                    }
                });
            });
        }
        Ok(())
    })?;
    Ok(CpuTensor::new(out, &frames.output_shape(&x.shape, frames.channels), A::DTYPE))
}

pub fn maximum_backward<A: Real>(saved: &MaxPoolSaved<HostMemory>, dy: &CpuTensor) -> Result<CpuTensor> {
    let places = saved.indices.memory.read()?;
    let total = dy.len();
    if saved.spec.index_bytes() == 1 {
        maximum_backward_with::<A, u8>(saved, dy, places.slice(0, total), usize::from)
    } else {
        maximum_backward_with::<A, u32>(saved, dy, places.slice(0, total), |place| place as usize)
    }
}

fn maximum_backward_with<A: Real, I: Pod + Send + Sync>(
    saved: &MaxPoolSaved<HostMemory>,
    dy: &CpuTensor,
    places: &[I],
    place: impl Fn(I) -> usize + Sync + Send,
) -> Result<CpuTensor> {
    let (window, frames) = (&saved.spec.window, saved.frames);
    spread::<A, I>(frames, &saved.input_shape, dy, places, frames.output_plane(), |dx, dy, places| {
        for (out, (dy, index)) in dy.iter().zip(places).enumerate() {
            let (y, x) = (out / frames.output[1], out % frames.output[1]);
            let (i, j) = (place(*index) / window.kernel[1], place(*index) % window.kernel[1]);
            let row = y * window.stride[0] + i - window.padding[0];
            dx[row * frames.input[1] + x * window.stride[1] + j - window.padding[1]] += *dy;
        }
    })
}

/// Runs `plane(dx, dy, places)` for every plane, on a dx of zeros. `places` holds
/// `per_plane` values for each plane.
fn spread<A: Real, I: Sync + Send>(
    frames: Frames,
    input_shape: &[usize],
    dy: &CpuTensor,
    places: &[I],
    per_plane: usize,
    plane: impl Fn(&mut [A], &[A], &[I]) + Sync + Send,
) -> Result<CpuTensor> {
    let (inputs, outputs) = (frames.input_plane(), frames.output_plane());
    let total = frames.samples * frames.channels;
    let mut out = HostMemory::take(total * inputs * size_of::<A>())?;
    let memory = dy.memory.read()?;
    let gradient = memory.slice::<A>(dy.offset, total * outputs);
    let dxs = out.as_mut_slice::<A>()[..total * inputs].chunks_mut(planes(frames) * inputs);
    let tasks = workspace::collect(gradient.chunks(planes(frames) * outputs).zip(dxs).enumerate())?;
    for_each(total * inputs * size_of::<A>(), tasks, |(task, (dy, dx))| {
        for (index, (dy, dx)) in dy.chunks_exact(outputs).zip(dx.chunks_exact_mut(inputs)).enumerate() {
            dx.fill(A::default());
            let first = (task * planes(frames) + index) * per_plane;
            plane(dx, dy, &places[first..first + per_plane]);
        }
        Ok(())
    })?;
    Ok(CpuTensor::new(out, input_shape, A::DTYPE))
}
