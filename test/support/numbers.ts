// Numbers for tests: a seeded generator (so that a failure can be run again) and central differences.

import { DIFFERENCE_STEP } from './tolerances.js'

/** mulberry32: uniform in [0, 1). */
export function generator(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** `count` normal values. */
export function normal(seed: number, count: number, mean = 0, deviation = 1): Float64Array {
  const uniform = generator(seed)
  return Float64Array.from({ length: count }, () => {
    const radius = Math.sqrt(-2 * Math.log(1 - uniform()))
    return mean + deviation * radius * Math.cos(2 * Math.PI * uniform())
  })
}

export const sizeOfShape = (shape: readonly number[]) =>
  shape.reduce((product, extent) => product * extent, 1)

export const dot = (a: ArrayLike<number>, b: ArrayLike<number>) => {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number)
  return sum
}

/** d f / d x by central differences; `x` is given back as it was. */
export function centralDifferences(x: Float64Array, f: () => number): Float64Array {
  return x.map((value, i) => {
    const step = DIFFERENCE_STEP * Math.max(1, Math.abs(value))
    x[i] = value + step
    const above = f()
    x[i] = value - step
    const below = f()
    x[i] = value
    return (above - below) / (2 * step)
  })
}
