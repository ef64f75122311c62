/** Checks of constructor arguments, shared by all layers. */
import { SpikenormError } from '../errors.js'

/** @returns `value`, a whole number of at least `least`; throws `ERR_ARGUMENT` otherwise. */
export function wholeNumber(layer: string, name: string, value: unknown, least = 1): number {
  if (!Number.isSafeInteger(value) || (value as number) < least || (value as number) > 0x7fffffff) {
    throw new SpikenormError(
      'ERR_ARGUMENT',
      `${layer}: ${name}: expected a whole number >= ${least}, got ${String(value)}`,
    )
  }
  return value as number
}

/** @returns `value`, a finite number; throws `ERR_ARGUMENT` otherwise. */
export function finiteNumber(
  layer: string,
  name: string,
  value: unknown,
  least = Number.NEGATIVE_INFINITY,
): number {
  if (typeof value !== 'number' || !Number.isFinite(value) || value < least) {
    const bound = least === Number.NEGATIVE_INFINITY ? '' : ` >= ${least}`
    throw new SpikenormError(
      'ERR_ARGUMENT',
      `${layer}: ${name}: expected a finite number${bound}, got ${String(value)}`,
    )
  }
  return value
}
