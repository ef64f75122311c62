// Random numbers for the tensors. Zeros would hide unwritten outputs and can run faster than data.

import { type Device, type DType, type Module, type Tensor, tensor } from 'spikenorm'
import { sizeOf } from './shapes.js'

// Prime, so that no extent divides it and no two rows of a tensor are alike.
const PERIOD = 1_048_573

/** mulberry32: uniform in [0, 1). */
function generator(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** `count` normal values, drawn once per PERIOD and then repeated: drawing costs more than all that is measured. */
export function normal(seed: number, count: number, mean = 0, deviation = 1): Float32Array {
  const uniform = generator(seed)
  const values = new Float32Array(count)
  const drawn = Math.min(count, PERIOD)
  for (let i = 0; i < drawn; i++) {
    const radius = Math.sqrt(-2 * Math.log(1 - uniform()))
    values[i] = mean + deviation * radius * Math.cos(2 * Math.PI * uniform())
  }
  for (let filled = drawn; filled < count; filled *= 2)
    values.copyWithin(filled, 0, Math.min(filled, count - filled))
  return values
}

export function randomTensor(seed: number, dims: readonly number[], dtype: DType, device: Device): Tensor {
  using wide = tensor(normal(seed, sizeOf(dims), 0.3, 1.2), dims)
  using narrow = dtype === 'float32' ? wide.clone() : wide.to(dtype)
  return device === 'cpu' ? narrow.clone() : narrow.to(device)
}

/** Parameters away from 0 and 1, so that a pass that forgets one is seen. The same for the same seed and names. */
export function randomiseParameters(module: Module, seed: number): void {
  for (const [at, [, parameter]] of module.namedParameters().entries()) {
    using values = tensor(normal(seed + at, parameter.size, 0.8, 0.2), parameter.shape, {
      device: parameter.device,
    })
    parameter.copy_(values)
  }
}
