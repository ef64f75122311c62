// Every tolerance of the suite, by dtype and reason. Tests name one; none writes a number of its own.

import type { DType } from '../../src/index.js'
import { type HalfType, unitInLastPlace } from './half.js'

/** An absolute bound and why it is this wide; the reason is printed when a comparison fails. */
export interface Gate {
  absolute: number
  why: string
}

export type FloatType = 'float64' | 'float32' | HalfType
export type Quantity = 'y' | 'dx' | 'grad' | 'state'

/**
 * The promise of the library, relative to the largest reference value of a tensor: float64 within 1e-12, float32
 * within 1e-6. Statistics and parameter gradients of half inputs are float32.
 */
const PROMISED: Record<'float64' | 'float32', number> = { float64: 1e-12, float32: 1e-6 }

/** Half results are rounded once from float32 arithmetic: half a unit for that, the rest for the float32 error. */
const HALF_UNITS = 2

export function isHalf(dtype: DType | FloatType): dtype is HalfType {
  return dtype === 'float16' || dtype === 'bfloat16'
}

/** The dtype of parameters and statistics beside activations of `dtype`. */
export function parameterType(dtype: FloatType): 'float64' | 'float32' {
  return dtype === 'float64' ? 'float64' : 'float32'
}

export function largest(...lists: ArrayLike<number>[]): number {
  let most = 0
  for (const list of lists) {
    for (let i = 0; i < list.length; i++) {
      const size = Math.abs(list[i] as number)
      if (Number.isFinite(size) && size > most) most = size
    }
  }
  return most
}

/** What a golden case may say about its own numbers. */
export type Widened = Partial<Record<'y' | 'dx' | 'grad', Partial<Record<string, number>>>>

/** Gate of a golden case (test/golden/README.md). `dy` is the largest |dy| of the backwards it depends on. */
export function golden(
  quantity: Quantity,
  dtype: FloatType,
  expected: ArrayLike<number>,
  { widened, dy = 0, note }: { widened?: Widened; dy?: number; note?: string } = {},
): Gate {
  const isActivation = quantity === 'y' || quantity === 'dx'
  const held = quantity === 'state' ? undefined : widened?.[quantity]
  // A gradient of parameters sums over everything and may cancel to 0; so may dx in the cases that say so.
  const cancels = quantity === 'grad' || (quantity === 'dx' && held !== undefined)
  const scale = Math.max(largest(expected), cancels ? dy : 0)
  if (isActivation && isHalf(dtype)) {
    return {
      absolute: HALF_UNITS * unitInLastPlace(scale, dtype),
      why: `${HALF_UNITS} units in the last place of ${dtype} at ${scale}`,
    }
  }
  const type = parameterType(dtype)
  const relative = Math.max(PROMISED[type], held?.[type] ?? 0)
  return { absolute: relative * scale, why: `${relative} of ${scale} in ${type}${note ? ` (${note})` : ''}` }
}

/** Losses after training steps: the error of each step feeds the next one's threshold crossings. */
export function trainedLoss(dtype: FloatType, expected: number): Gate {
  const relative = dtype === 'float64' ? 1e-10 : 1e-5
  return { absolute: relative * Math.abs(expected), why: `${relative} of the loss after training` }
}

/** State after training steps. Some biases are near 0, hence the floor. */
export function trainedState(dtype: FloatType, expected: ArrayLike<number>): Gate {
  const relative = dtype === 'float64' ? 1e-9 : 2e-5
  const scale = Math.max(largest(expected), 0.1)
  return { absolute: relative * scale, why: `${relative} of ${scale} after training` }
}

/**
 * Random shapes against the float64 reference. `scale` is the size of the terms before they cancel (for dx,
 * |i·p·w·dy|; for gradients, Σ|dy·x̂|): with two values in a row dx is all cancellation, so the promise, which is
 * about the largest result, has nothing to hold on to. The rounding of x̂ and of the two row sums makes a few units
 * of each term; 4 promised gates cover them with rows of up to a few hundred values.
 */
export function random(quantity: Quantity, dtype: FloatType, expected: ArrayLike<number>, scale = 0): Gate {
  const type = parameterType(dtype)
  const size = Math.max(largest(expected), scale)
  const absolute = 4 * PROMISED[type] * size
  const why = `4 · ${PROMISED[type]} of ${size} in ${type}`
  if ((quantity === 'y' || quantity === 'dx') && isHalf(dtype)) {
    const units = HALF_UNITS * unitInLastPlace(largest(expected), dtype)
    return { absolute: units + absolute, why: `${HALF_UNITS} units of ${dtype} and ${why}` }
  }
  return { absolute, why }
}

/** Step of central differences in float64: the cube root of the unit roundoff balances both errors. */
export const DIFFERENCE_STEP = 6e-6

/** Central differences are off by h²·f‴/6 and by roundoff/h, both about 1e-10 of the function's size. */
export function differences(expected: ArrayLike<number>, functionSize: number): Gate {
  const scale = Math.max(largest(expected), functionSize)
  return { absolute: 1e-7 * scale, why: `central differences, 1e-7 of ${scale}` }
}

/**
 * What 10,000 steps may add to the process after 10,000 others. A leak of one 4 KiB tensor a step adds 43 MB of
 * tensors, and that count is exact: without a leak it is 0. The resident size is coarser: 35 to 79 MB in every round
 * with the leak, 0 to 43 MB in the first ones without, until garbage has once piled up to its full height.
 */
export const MEMORY = {
  residentBytes: 32 * 2 ** 20,
  heapBytes: 6 * 2 ** 20,
  externalBytes: 6 * 2 ** 20,
  /** Bytes of tensors the library counts as alive: whatever was alive before, and not one more. */
  tensorBytes: 0,
  /** Garbage that may pile up before it is collected: 20 to 76 MB measured, 195 to 351 MB when nothing is reclaimed. */
  peakBytes: 128 * 2 ** 20,
}

/** Equal by contract, not merely close: copies, views, selections of input values, counters. */
export const EXACT: Gate = { absolute: 0, why: 'equal by contract' }

/** Learning rates of at most 1, up to thirty steps of a recursion in float64. */
export const SCHEDULE: Gate = { absolute: 1e-14, why: 'a few roundings a step, cosines of two libraries' }

/** Two float32 computations that round differently: each within a few times 1e-6 of the truth, through four layers. */
export function peer(expected: ArrayLike<number>): Gate {
  const scale = largest(expected)
  return { absolute: 1e-5 * scale, why: `1e-5 of ${scale}: float32 here against float32 in PyTorch` }
}

/** What the examples print, which is float32 throughout. */
export const EXAMPLES = {
  /** Logits, gradients and weights around 1 through five layers, here and in SpikingJelly: 6e-9 to 1.2e-7 measured. */
  port: 1e-6,
  /** A gradient of size 0.1 summed over 16 steps in another order: 2e-8 to 5e-8 measured. */
  order: 1e-6,
  /** tdBN on a device and on the CPU: rounding of values around 1. */
  devices: 1e-5,
  /** Losses of half types beside float32, relative to the first: bfloat16 has 8 bits; 0.0017 measured. */
  half: 0.02,
}
