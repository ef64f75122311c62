/** Initial values. Layers whose values are overwritten at once need no initial ones, and must not move the generator behind them. */
import { native } from './native.js'
import { keepValues } from './rollback.js'
import type { Tensor } from './tensor.js'

let skipped = 0

/** Runs `make`; layers constructed in it keep the values their memory starts with and draw no random numbers. */
export function withoutInitialisation<R>(make: () => R): R {
  skipped++
  try {
    return make()
  } finally {
    skipped--
  }
}

/** Whether a layer under construction is to draw its initial values. */
export function isInitialising(): boolean {
  return skipped === 0
}

/** Sets all values of each tensor to one: of all, or where one cannot be used of none. */
export function fill(given: readonly (readonly [Tensor | undefined, number])[]): void {
  const filled = given.flatMap(([values, value]) => (values ? [{ values, id: values.id, value }] : []))
  for (const { values } of filled) keepValues(values)
  for (const { id, value } of filled) native.tensorFill(id, value)
}

/** Draws all values of each tensor from U(±bound): of all, or where one cannot be used of none. */
export function drawUniform(tensors: readonly Tensor[], bound: number): void {
  const ids = tensors.map(({ id }) => id)
  for (const values of tensors) keepValues(values)
  for (const id of ids) native.tensorUniform(id, -bound, bound)
}
