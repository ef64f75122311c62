// Comparisons that say where and by how much: a failing one prints the worst index, what was expected there, what
// came, the error and the bound with its reason.

import { expect } from 'vitest'
import { SpikenormError, type Tensor } from '../../src/index.js'
import { bytesOf } from './bytes.js'
import type { Gate } from './tolerances.js'

function errorBetween(got: number, expected: number): number {
  if (Object.is(got, expected) || got === expected) return 0
  if (Number.isNaN(got) && Number.isNaN(expected)) return 0
  const error = Math.abs(got - expected)
  // Infinity against a number, or NaN against one, is as wrong as can be.
  return Number.isNaN(error) ? Number.POSITIVE_INFINITY : error
}

/** The message of a failed comparison, or null. */
export function difference(
  label: string,
  got: ArrayLike<number>,
  expected: ArrayLike<number>,
  gate: Gate,
): string | null {
  if (got.length !== expected.length)
    return `${label}: ${got.length} values where ${expected.length} are expected`
  let worst = -1
  let worstError = gate.absolute
  let outside = 0
  for (let i = 0; i < expected.length; i++) {
    const error = errorBetween(got[i] as number, expected[i] as number)
    if (error <= gate.absolute) continue
    outside++
    if (worst < 0 || error > worstError) {
      worst = i
      worstError = error
    }
  }
  if (worst < 0) return null
  return (
    `${label}: ${outside} of ${expected.length} values are off; the worst at index ${worst}: ` +
    `expected ${expected[worst]}, got ${got[worst]}, error ${worstError.toExponential(3)}, ` +
    `bound ${gate.absolute.toExponential(3)} (${gate.why})`
  )
}

export function expectClose(
  label: string,
  got: ArrayLike<number>,
  expected: ArrayLike<number>,
  gate: Gate,
): void {
  const message = difference(label, got, expected, gate)
  if (message) throw new Error(message)
  // Counts as an assertion for vitest's own bookkeeping.
  expect(message).toBeNull()
}

/** A tensor against reference numbers, shape and dtype included. */
export function expectTensor(
  label: string,
  got: Tensor,
  expected: { shape: readonly number[]; values: ArrayLike<number>; dtype?: string },
  gate: Gate,
): void {
  expect(got.shape, `${label}: shape`).toEqual([...expected.shape])
  if (expected.dtype) expect(got.dtype, `${label}: dtype`).toBe(expected.dtype)
  expectClose(label, got.toFloat64Array(), expected.values, gate)
}

/** Bit by bit: NaNs with other payloads, and 0 against −0, are different. */
export function expectSameBits(label: string, got: Tensor, expected: Tensor): void {
  expect(got.shape, `${label}: shape`).toEqual(expected.shape)
  expect(got.dtype, `${label}: dtype`).toBe(expected.dtype)
  const [a, b] = [got.toTypedArray(), expected.toTypedArray()]
  const [x, y] = [bytesOf(a), bytesOf(b)]
  const at = x.findIndex((byte, i) => byte !== y[i])
  if (at >= 0) {
    const index = Math.floor(at / a.BYTES_PER_ELEMENT)
    throw new Error(`${label}: other bits at index ${index}: expected ${b[index]}, got ${a[index]}`)
  }
  expect(at).toBe(-1)
}

/** Runs `action`, which must throw a SpikenormError of this code whose message holds every one of `words`. */
export function expectCode(
  code: string,
  action: () => unknown,
  ...words: (string | RegExp)[]
): SpikenormError {
  let thrown: unknown
  try {
    action()
  } catch (error) {
    thrown = error
  }
  if (thrown === undefined) throw new Error(`expected ${code}, but nothing was thrown`)
  if (!(thrown instanceof SpikenormError)) {
    throw new Error(`expected a SpikenormError ${code}, got ${thrown}`, { cause: thrown })
  }
  expect(thrown.code, thrown.message).toBe(code)
  for (const word of words) expect(thrown.message).toMatch(word)
  return thrown
}
