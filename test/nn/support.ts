// What the tests of the training kit share: numbers, comparisons and their tolerances, snapshots.

import { expect } from 'vitest'
import { type Module, noGrad, SpikenormError, type Tensor, tensor } from '../../src/index.js'

/** Central differences of step 1e-5 in float64 round by about 1e-16/1e-5 and some more in long sums. */
export const DIFFERENCE_TOLERANCE = 1e-8
/** Element-wise arithmetic of a few steps, relative to the largest value. */
export const STEP_TOLERANCE = { float64: 1e-14, float32: 1e-6 } as const

/** Reproducible values in ±1, all different. */
export function noise(seed: number, size: number): Float64Array {
  let state = (seed * 2654435761) >>> 0 || 1
  return Float64Array.from({ length: size }, () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) / 2 ** 31 - 1
  })
}

export const sizeOf = (shape: readonly number[]) => shape.reduce((product, extent) => product * extent, 1)

export function noisy(
  seed: number,
  shape: readonly number[],
  dtype: 'float64' | 'float32' = 'float64',
): Tensor {
  return tensor(noise(seed, sizeOf(shape)), shape, { dtype })
}

export function expectClose(
  what: string,
  got: Float64Array,
  want: ArrayLike<number>,
  tolerance: number,
): void {
  expect(got.length, what).toBe(want.length)
  const scale = Math.max(...Array.from(want, Math.abs)) || 1
  for (const [index, value] of got.entries()) {
    const error = Math.abs(value - (want[index] as number)) / scale
    if (!(error <= tolerance)) {
      expect.fail(`${what}: at ${index} got ${value}, expected ${want[index]}, off by ${error} of ${scale}`)
    }
  }
}

export function expectCode(code: string, call: () => unknown, ...words: string[]): void {
  let thrown: unknown
  try {
    call()
  } catch (error) {
    thrown = error
  }
  expect(thrown, `expected ${code}`).toBeInstanceOf(SpikenormError)
  expect((thrown as SpikenormError).code).toBe(code)
  for (const word of words) expect((thrown as SpikenormError).message).toContain(word)
}

/** Central differences of Σ f(x)·weights at `x`. */
export function centralDifferences(
  x: Float64Array,
  weights: Float64Array,
  f: (x: Float64Array) => Float64Array,
): Float64Array {
  const step = 1e-5
  const objective = (at: number, by: number) => {
    const moved = x.slice()
    moved[at] = (moved[at] as number) + by
    return f(moved).reduce((sum, y, i) => sum + y * (weights[i] as number), 0)
  }
  return x.map((_, at) => (objective(at, step) - objective(at, -step)) / (2 * step))
}

/** Checks dx and every parameter gradient of a float64 module, which starts each forward from its reset state. */
export function expectGradients(module: Module, shape: readonly number[]): void {
  const x = noise(70, sizeOf(shape))
  const evaluate = (values: Float64Array) => {
    for (const below of module.modules()) below.reset()
    return noGrad(() => module.forward(tensor(values, shape)).toFloat64Array())
  }
  for (const below of module.modules()) below.reset()
  const y = module.forward(tensor(x, shape))
  const weights = noise(71, y.size)
  const dx = module.backward(tensor(weights, y.shape))
  expectClose('dx', dx.toFloat64Array(), centralDifferences(x, weights, evaluate), DIFFERENCE_TOLERANCE)
  for (const [name, parameter] of module.namedParameters()) {
    const values = parameter.toFloat64Array()
    const differences = centralDifferences(values, weights, (moved) => {
      parameter.copy_(tensor(moved, parameter.shape))
      return evaluate(x)
    })
    parameter.copy_(tensor(values, parameter.shape))
    const { grad } = parameter
    expectClose(name, grad?.toFloat64Array() ?? new Float64Array(), differences, DIFFERENCE_TOLERANCE)
  }
}

/** Everything about a tree of modules that a failing call must leave alone. */
export function snapshot(module: Module): unknown {
  const values = (entries: Iterable<[string, Tensor | null]>) =>
    Object.fromEntries([...entries].map(([name, value]) => [name, value && [...value.toFloat64Array()]]))
  return {
    state: values(Object.entries(module.stateDict())),
    grads: values(module.namedParameters().map(([name, parameter]) => [name, parameter.grad])),
    modules: module.modules().map((below) => ({
      pending: below.pendingForwards,
      stepMode: below.stepMode,
      training: below.training,
      v: 'v' in below ? ((below.v as Tensor | null)?.toFloat64Array() ?? null) : undefined,
    })),
  }
}
