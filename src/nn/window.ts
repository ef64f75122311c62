import { wholeNumber } from '../arguments.js'

/** One whole number for both axes, or `[vertical, horizontal]`. */
export type Pair = number | readonly [number, number]

/** @returns both axes of `value`, whole numbers of at least `least`; throws `ERR_ARGUMENT` otherwise. */
export function pair(layer: string, name: string, value: unknown, least: number): [number, number] {
  const both = Array.isArray(value) && value.length === 2 ? value : [value, value]
  return [wholeNumber(layer, name, both[0], least), wholeNumber(layer, name, both[1], least)]
}
