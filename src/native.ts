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
