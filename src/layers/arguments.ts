/** Checks of constructor arguments, shared by all layers. */
import { type Device, parseDevice } from '../device.js'
import { type DType, expectFloatDType, parameterDType } from '../dtype.js'
import { SpikenormError } from '../errors.js'
import type { TensorOptions } from '../tensor.js'

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

/** Where and in which dtype a layer keeps its parameters: its options, checked. */
export function placeOfParameters(options: { dtype?: DType; device?: Device }): Required<TensorOptions> {
  return {
    dtype: parameterDType(expectFloatDType(options.dtype ?? 'float32')),
    device: parseDevice(options.device ?? 'cpu'),
  }
}
