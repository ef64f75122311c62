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

/** Sets all values to one. */
export function fill(values: Tensor, value: number): void {
  keepValues(values)
  native.tensorFill(values.id, value)
}

/** Draws all values from U(±bound). */
export function drawUniform(values: Tensor, bound: number): void {
  keepValues(values)
  native.tensorUniform(values.id, -bound, bound)
}
