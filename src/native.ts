/** The addon, with its errors as SpikenormError. Nothing outside src/ speaks to it. */
import { loadAddon } from './addon.js'
import { SpikenormError } from './errors.js'

type Addon = ReturnType<typeof loadAddon>

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
  Object.entries(loadAddon())
    .filter(([, value]) => typeof value === 'function')
    .map(([name, value]) => [name, guarded(value as (...args: unknown[]) => unknown)]),
) as unknown as Addon

/** A call that makes up to four values returns the first handle above a bit for each (src/native/handles.rs). */
const FIRST_HANDLE = 2 ** 4

/** @returns handle `at` of what a call has made, 0 where it made none */
export function madeAt(made: number, at: 0 | 1 | 2 | 3): number {
  const first = Math.floor(made / FIRST_HANDLE)
  const present = made - FIRST_HANDLE * first
  return (present >> at) & 1 ? first + at : 0
}
