/**
 * Values between TensorFlow.js and spikenorm. On TensorFlow.js's CPU backend a tensor's values are a Float32Array in
 * JavaScript's memory, so that neither direction copies; other backends copy out with `dataSync()`, and in when the
 * result is used.
 */
import * as tf from '@tensorflow/tfjs-core'
import { formatValue } from '../format-value.js'
import { type Device, SpikenormError, Tensor, tensor } from '../index.js'

/** Dtypes of TensorFlow.js whose values go into a float32 module, as they go into TensorFlow.js's own layers. */
const NUMERIC: ReadonlySet<string> = new Set(['float32', 'int32', 'bool'])

const TWO_COPIES =
  '; its model is of another copy of @tensorflow/tfjs-layers: npm ls @tensorflow/tfjs-layers shows them'

/** Whether a model of another copy of tf.layers calls: this copy's layers take its symbols for values. */
function isForeignSymbol(x: unknown): boolean {
  return (x as object | null | undefined)?.constructor?.name === 'SymbolicTensor'
}

/**
 * The values of `x` in float32: its own array where that holds them, a copy otherwise. The array decides, not the dtype:
 * `tf.cast(x, 'float32')` relabels an int32 tensor and keeps the Int32Array beneath.
 */
export function valuesOf(what: string, x: tf.Tensor): Float32Array {
  if (!(x instanceof tf.Tensor)) {
    throw new SpikenormError(
      'ERR_ARGUMENT',
      `${what}: expected a tf.Tensor, got ${formatValue(x)}${isForeignSymbol(x) ? TWO_COPIES : ''}`,
    )
  }
  if (!NUMERIC.has(x.dtype)) {
    const remedy = x.dtype === 'complex64' ? '; take its tf.real(x) or tf.abs(x)' : ''
    throw new SpikenormError('ERR_DTYPE', `${what}: expected float32, int32 or bool, got ${x.dtype}${remedy}`)
  }
  if (x.isDisposed) throw new SpikenormError('ERR_DISPOSED', `${what}: the tf.Tensor has been disposed of`)
  const values = x.dataSync()
  return values instanceof Float32Array ? values : Float32Array.from(values)
}

/** A tensor of these values: over them on the CPU, a copy elsewhere. */
export function tensorOf(values: Float32Array, shape: readonly number[], device: Device): Tensor {
  return device === 'cpu' ? Tensor.fromTypedArray(values, shape) : tensor(values, shape, { device })
}

/** Elements below which a copy costs less than an array over a tensor's memory, which V8 has to watch. */
const SMALL = 4096

/** The values of a float32 tensor that is not used any more: its own on the CPU, a copy elsewhere. */
export function arrayOf(x: Tensor): Float32Array {
  const isTaken = x.device === 'cpu' && x.size >= SMALL
  return (isTaken ? x.take() : x.toTypedArray()) as Float32Array
}

/** A new TensorFlow.js tensor with the present values of `x`, of whatever dtype. */
export function snapshotOf(x: Tensor): tf.Tensor {
  const copy = x.dtype === 'float32' ? x.clone() : x.to('float32')
  try {
    return tf.tensor(arrayOf(copy), [...x.shape], 'float32')
  } finally {
    copy.dispose()
  }
}

/** Overwrites tensors in place with the values of TensorFlow.js's: all of them or, with an error, none. */
export function overwrite(
  what: string,
  pairs: readonly (readonly [target: Tensor, source: tf.Tensor])[],
): void {
  const values = pairs.map(([, source]) => valuesOf(what, source))
  for (const [i, [target, source]] of pairs.entries()) {
    const value = tensorOf(values[i] as Float32Array, source.shape, target.device)
    try {
      target.copy_(value)
    } finally {
      value.dispose()
    }
  }
}

/** Values `[A, B, …]` as `[B, A, …]`: whole rows are moved. */
export function swapped(values: Float32Array, [a = 1, b = 1]: readonly number[]): Float32Array {
  const row = values.length / (a * b || 1)
  const result = new Float32Array(values.length)
  for (let i = 0; i < a; i++) {
    for (let j = 0; j < b; j++) {
      const from = (i * b + j) * row
      result.set(values.subarray(from, from + row), (j * a + i) * row)
    }
  }
  return result
}
