/** The addon, with its errors as SpikenormError. Nothing outside src/ speaks to it. */
import * as addon from '../index.js'
import { SpikenormError } from './errors.js'

type Addon = typeof addon

function guarded(native: (...args: unknown[]) => unknown) {
  return (...args: unknown[]) => {
    try {
      return native(...args)
    } catch (thrown) {
      throw SpikenormError.from(thrown)
    }
  }
}

export const native = Object.fromEntries(
  Object.entries(addon)
    .filter(([, value]) => typeof value === 'function')
    .map(([name, value]) => [name, guarded(value as (...args: unknown[]) => unknown)]),
) as unknown as Addon

/** Calls that return several handles pack two of them into one number (src/native/handles.rs). */
const PAIR = 2 ** 26

/** What a call with up to four handles returns: a pair, or an array of two where it takes more. */
export type Packed = number | readonly number[]

/** @returns the `at`-th pair of what a call has returned */
export function pairOf(packed: Packed, at: 0 | 1): number {
  return typeof packed === 'number' ? (at === 0 ? packed : 0) : (packed[at] as number)
}

export function highOf(pair: number): number {
  return Math.floor(pair / PAIR)
}

export function lowOf(pair: number): number {
  return pair - PAIR * Math.floor(pair / PAIR)
}
