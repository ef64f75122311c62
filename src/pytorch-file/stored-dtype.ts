/** The dtypes of PyTorch's files: as what each is read, and which dtype here holds its values. */
import { endianness } from 'node:os'
import type { DType } from '../dtype.js'

export type StoredValues =
  | Float64Array<ArrayBuffer>
  | Float32Array<ArrayBuffer>
  | BigInt64Array<ArrayBuffer>
  | Narrow

type Narrow =
  | Uint32Array<ArrayBuffer>
  | Uint16Array<ArrayBuffer>
  | Uint8Array<ArrayBuffer>
  | Int32Array<ArrayBuffer>
  | Int16Array<ArrayBuffer>
  | Int8Array<ArrayBuffer>

export interface StoredDType {
  /** The dtype that holds every value. */
  dtype: DType
  /** Bytes of an element in it. */
  bytesInMemory: number
  /** The values as they are in the file. */
  view(buffer: ArrayBuffer): StoredValues
  /** The values of `dtype`, as `tensor` takes them. */
  convert(values: StoredValues): Exclude<StoredValues, Uint32Array | Int32Array | Int16Array | Int8Array>
}

type Loaded = ReturnType<StoredDType['convert']>

const kept = (
  dtype: DType,
  bytesInMemory: number,
  view: (buffer: ArrayBuffer) => StoredValues & Loaded,
): StoredDType => ({ dtype, bytesInMemory, view, convert: (values) => values as Loaded })

const widened = (view: (buffer: ArrayBuffer) => Narrow): StoredDType => ({
  dtype: 'int64',
  bytesInMemory: 8,
  view,
  convert: (values) => widen(values as Narrow),
})

const STORED = new Map<string, StoredDType>([
  ['float64', kept('float64', 8, (buffer) => new Float64Array(buffer))],
  ['float32', kept('float32', 4, (buffer) => new Float32Array(buffer))],
  ['float16', kept('float16', 2, (buffer) => new Uint16Array(buffer))],
  ['bfloat16', kept('bfloat16', 2, (buffer) => new Uint16Array(buffer))],
  ['int64', kept('int64', 8, (buffer) => new BigInt64Array(buffer))],
  ['uint8', kept('uint8', 1, (buffer) => new Uint8Array(buffer))],
  [
    'bool',
    {
      ...kept('uint8', 1, (buffer) => new Uint8Array(buffer)),
      convert: (values) => (values as Uint8Array<ArrayBuffer>).map((value) => (value === 0 ? 0 : 1)),
    },
  ],
  ['int32', widened((buffer) => new Int32Array(buffer))],
  ['int16', widened((buffer) => new Int16Array(buffer))],
  ['int8', widened((buffer) => new Int8Array(buffer))],
  ['uint32', widened((buffer) => new Uint32Array(buffer))],
  ['uint16', widened((buffer) => new Uint16Array(buffer))],
])

/** How a dtype, by PyTorch's name, is read; `undefined` where no dtype here holds its values. */
export function storedAs(name: string): StoredDType | undefined {
  return STORED.get(name)
}

/** Integers as int64, by their halves: BigInts would take ten times as long. */
function widen(values: Narrow): BigInt64Array<ArrayBuffer> {
  const halves = new Int32Array(2 * values.length)
  const high = endianness() === 'LE' ? 1 : 0
  for (let i = 0; i < values.length; i++) {
    const value = values[i] as number
    halves[2 * i + 1 - high] = value
    halves[2 * i + high] = value < 0 ? -1 : 0
  }
  return new BigInt64Array(halves.buffer)
}

/** Negates in place, with wrapping where the dtype has no sign: what the negative bit stands for. */
export function negate(values: StoredValues, dtype: string): void {
  if (values instanceof BigInt64Array) {
    for (let i = 0; i < values.length; i++) values[i] = -(values[i] as bigint)
  } else if (dtype === 'float16' || dtype === 'bfloat16') {
    for (let i = 0; i < values.length; i++) values[i] = (values[i] as number) ^ 0x8000
  } else {
    for (let i = 0; i < values.length; i++) values[i] = -(values[i] as number)
  }
}
