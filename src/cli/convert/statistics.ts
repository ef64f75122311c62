/** What a tensor holds, in a line. */

import { printable } from '../../format-value.js'
import type { DType, Tensor } from '../../index.js'
import { bytes, shapeText, short, table } from '../text.js'
import type { Dict } from './rename.js'

export interface TensorSummary {
  key: string
  dtype: DType
  shape: readonly number[]
  /** Number of values. */
  size: number
  /** Of the finite values; null where there are none. */
  min: number | null
  mean: number | null
  max: number | null
  nan: number
  inf: number
}

const BYTES: Record<DType, number> = { float64: 8, float32: 4, float16: 2, bfloat16: 2, uint8: 1, int64: 8 }

export function summarise(key: string, tensor: Tensor): TensorSummary {
  let [min, max, sum, nan, inf] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0, 0, 0]
  const values = tensor.toFloat64Array()
  for (const value of values) {
    if (Number.isFinite(value)) {
      min = Math.min(min, value)
      max = Math.max(max, value)
      sum += value
    } else if (Number.isNaN(value)) nan++
    else inf++
  }
  const finite = values.length - nan - inf
  const { dtype, shape } = tensor
  const known = { key, dtype, shape, size: values.length, nan, inf }
  return finite === 0
    ? { ...known, min: null, mean: null, max: null }
    : { ...known, min, mean: sum / finite, max }
}

export function summariseAll(dict: Dict): TensorSummary[] {
  return Object.entries(dict).map(([key, tensor]) => summarise(key, tensor))
}

/** A row per tensor; NaN and infinity have columns only where there are any. */
export function summaryTable(rows: readonly TensorSummary[]): string {
  const number = (value: number | null) => (value === null ? '–' : short(value))
  const isTainted = rows.some(({ nan, inf }) => nan + inf > 0)
  const head = ['key', 'dtype', 'shape', 'values', 'min', 'mean', 'max', ...(isTainted ? ['NaN', 'Inf'] : [])]
  const body = rows.map((row) => [
    printable(row.key),
    row.dtype,
    shapeText(row.shape),
    String(row.size),
    number(row.min),
    number(row.mean),
    number(row.max),
    ...(isTainted ? [String(row.nan), String(row.inf)] : []),
  ])
  const size = rows.reduce((sum, row) => sum + row.size * BYTES[row.dtype], 0)
  const values = rows.reduce((sum, row) => sum + row.size, 0)
  const count = `${rows.length} ${rows.length === 1 ? 'tensor' : 'tensors'}, ${values} values, ${bytes(size)}`
  return `${table([head, ...body], [3, 4, 5, 6, 7, 8])}\n${count}`
}
