import { SpikenormError } from './errors.js'
import { formatValue } from './format-value.js'

/**
 * Element types, with PyTorch's names. Layers take `'float64'`, `'float32'`, `'float16'` and `'bfloat16'`; half types
 * compute in float32 and are rounded once on the way out, beside float32 parameters. `'int64'` holds labels and counters,
 * `'uint8'` labels and images.
 */
export type DType = 'float64' | 'float32' | 'float16' | 'bfloat16' | 'uint8' | 'int64'

/** Typed arrays, by whose kind the dtype is told. */
export type TypedArray =
  | Float64Array
  | Float32Array
  | Uint16Array
  | Uint8Array
  | Uint8ClampedArray
  | Int8Array
  | Int16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array

/** What {@link tensor} takes: a typed array, or numbers. */
export type TensorData = TypedArray | NestedNumbers

/** Numbers in arrays of arrays, all of one length at each depth. Booleans are 0 and 1; bigints are for `'int64'`. */
export type NestedNumbers = number | bigint | boolean | readonly NestedNumbers[]

const DTYPES: readonly string[] = ['float64', 'float32', 'float16', 'bfloat16', 'uint8', 'int64']

/** Typed arrays that hold a dtype's very bytes. Float16Array is younger than the oldest Node supported. */
const STORED_AS: Record<string, readonly DType[]> = {
  Float64Array: ['float64'],
  Float32Array: ['float32'],
  Float16Array: ['float16'],
  Uint16Array: ['float16', 'bfloat16'],
  Uint8Array: ['uint8'],
  Uint8ClampedArray: ['uint8'],
  BigInt64Array: ['int64'],
}

export function isDType(name: unknown): name is DType {
  return typeof name === 'string' && DTYPES.includes(name)
}

/** The dtype a module's parameters have beside activations of this one. */
export function parameterDType(dtype: DType): DType {
  return dtype === 'float64' ? 'float64' : 'float32'
}

/** Checks a module's `dtype` option. */
export function expectFloatDType(dtype: unknown, where?: string): DType {
  if (!isDType(dtype) || dtype === 'uint8' || dtype === 'int64') {
    throw new SpikenormError(
      'ERR_DTYPE',
      `${where === undefined ? '' : `${where}: `}dtype: expected 'float64', 'float32', 'float16' or 'bfloat16', got ${formatValue(dtype)}`,
    )
  }
  return dtype
}

/** Checks a dtype, any of them; `where` is who was given it. */
export function expectDType(dtype: unknown, where?: string): DType {
  if (!isDType(dtype)) {
    throw new SpikenormError(
      'ERR_DTYPE',
      `${where === undefined ? '' : `${where}: `}dtype: expected one of ${DTYPES.join(', ')}, got ${formatValue(dtype)}`,
    )
  }
  return dtype
}

/** The dtype of new data, and whether the array holds its bytes as they are. */
export function dtypeOfData(data: unknown, wanted: DType | undefined): { dtype: DType; isStored: boolean } {
  if (wanted !== undefined) expectDType(wanted)
  if (Array.isArray(data)) return { dtype: wanted ?? 'float32', isStored: false }
  if (!ArrayBuffer.isView(data) || data instanceof DataView) {
    throw new SpikenormError(
      'ERR_ARGUMENT',
      `data: expected a typed array or an array of numbers, got ${formatValue(data)}`,
    )
  }
  const kind = Object.prototype.toString.call(data).slice('[object '.length, -1)
  const stored = STORED_AS[kind] ?? []
  const natural = stored.length === 1 ? stored[0] : undefined
  const dtype = wanted ?? natural
  if (dtype === undefined) {
    throw new SpikenormError(
      'ERR_DTYPE',
      `data: a ${kind} needs a dtype to be said (${kind === 'Uint16Array' ? 'float16 or bfloat16 for bits' : "such as 'int64' or 'float32'"})`,
    )
  }
  return { dtype, isStored: stored.includes(dtype) }
}

/** Bytes of an element. */
export function bytesOf(dtype: DType): number {
  return { float64: 8, float32: 4, float16: 2, bfloat16: 2, uint8: 1, int64: 8 }[dtype]
}

/**
 * The values in a buffer, from byte `offset` on; all there are unless `length` says how many.
 *
 * @internal Its inferred type would need TypeScript 5.7 of users.
 */
export function typedArrayOf(dtype: DType, buffer: ArrayBuffer, offset = 0, length?: number) {
  switch (dtype) {
    case 'float64':
      return new Float64Array(buffer, offset, length)
    case 'float32':
      return new Float32Array(buffer, offset, length)
    case 'float16':
    case 'bfloat16':
      return new Uint16Array(buffer, offset, length)
    case 'uint8':
      return new Uint8Array(buffer, offset, length)
    case 'int64':
      return new BigInt64Array(buffer, offset, length)
  }
}
