/** What `tensor()` is given: typed arrays, numbers, and arrays of them at any depth. */
import { type DType, dtypeOfData, type TypedArray } from './dtype.js'
import { type ErrorCode, SpikenormError } from './errors.js'
import { formatValue } from './format-value.js'

/** Values for a new tensor: the bytes of a dtype as they are, or numbers to be rounded to it. */
export interface Values {
  readonly dtype: DType
  /** As the arrays are nested. */
  readonly shape: readonly number[]
  readonly bytes?: Uint8Array
  readonly numbers?: Float64Array
}

/** As many axes as PyTorch allows: arrays nested deeper contain themselves. */
const DEEPEST = 64

const refused = (problem: string, code: ErrorCode = 'ERR_ARGUMENT') =>
  new SpikenormError(code, `tensor: data: ${problem}`)

/** Reads the data of `tensor()`. Throws `ERR_ARGUMENT` for what holds anything but numbers, or is ragged. */
export function readValues(data: unknown, wanted: DType | undefined): Values {
  if (isTypedArray(data)) return valuesOfTypedArray(data, wanted)
  const isNumber = typeof data === 'number' || typeof data === 'bigint' || typeof data === 'boolean'
  if (!Array.isArray(data) && !isNumber)
    throw refused(`expected numbers in an array or a typed array, got ${formatValue(data)}${remedyFor(data)}`)
  const flat = Array.isArray(data) ? numbersOf(data) : null
  if (flat) return valuesOfNumbers(flat, [flat.length], wanted ?? 'float32')
  const shape: number[] = []
  const values: (number | bigint)[] = []
  collect(data, [], shape, values)
  const isBig = values.length > 0 && values.every((value) => typeof value === 'bigint')
  const dtype = wanted ?? (isBig ? 'int64' : 'float32')
  if (dtype === 'int64') return { dtype, shape, bytes: bytesOf(BigInt64Array.from(values, toInt64)) }
  return valuesOfNumbers(Float64Array.from(values, Number), shape, dtype)
}

function isTypedArray(data: unknown): data is TypedArray {
  return ArrayBuffer.isView(data) && !isOf(data, 'DataView')
}

/** By the name that objects of every realm have. */
function isOf(value: unknown, name: string): boolean {
  return Object.prototype.toString.call(value) === `[object ${name}]`
}

function remedyFor(data: unknown): string {
  if (isOf(data, 'ArrayBuffer') || isOf(data, 'SharedArrayBuffer') || isOf(data, 'DataView')) {
    return '; put a typed array over it, such as new Float32Array(buffer)'
  }
  return ''
}

/** Throws `ERR_DISPOSED` for a typed array whose buffer has been transferred, or shrunk below it. */
export function expectAttached(where: string, data: ArrayBufferView): void {
  try {
    Reflect.apply(Uint8Array.prototype.at, data, [0])
  } catch {
    throw new SpikenormError(
      'ERR_DISPOSED',
      `${where}: the typed array's buffer has been transferred or shrunk`,
    )
  }
}

function valuesOfTypedArray(data: TypedArray, wanted: DType | undefined): Values {
  const { dtype, isStored } = dtypeOfData(data, wanted)
  expectAttached('tensor: data', data)
  const shape = [data.length]
  if (isStored) {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    // Another thread may write to a shared buffer meanwhile.
    return { dtype, shape, bytes: isOf(data.buffer, 'SharedArrayBuffer') ? bytes.slice() : bytes }
  }
  if (dtype === 'int64' && isOf(data, 'BigUint64Array')) {
    return { dtype, shape, bytes: bytesOf(BigInt64Array.from(data as ArrayLike<bigint>, toInt64)) }
  }
  return valuesOfNumbers(numbersOfTypedArray(data), shape, dtype)
}

/** A copy, one by one: `Float64Array.from` would make a list of them on V8's heap first. */
function numbersOfTypedArray(data: TypedArray): Float64Array {
  const numbers = newNumbers(data.length)
  if (isOf(data, 'BigInt64Array') || isOf(data, 'BigUint64Array')) {
    for (let i = 0; i < numbers.length; i++) numbers[i] = Number(data[i])
  } else {
    numbers.set(data as ArrayLike<number>)
  }
  return numbers
}

/** Room for numbers; throws `ERR_OUT_OF_MEMORY` where V8 has none. */
export function newNumbers(length: number): Float64Array<ArrayBuffer> {
  try {
    return new Float64Array(length)
  } catch {
    throw refused(`an array of ${length} values does not fit in memory`, 'ERR_OUT_OF_MEMORY')
  }
}

const bytesOf = (values: BigInt64Array) => new Uint8Array(values.buffer)

/** The numbers of an array of nothing else: the common case, and the fast one. */
function numbersOf(data: readonly unknown[]): Float64Array | null {
  const { length } = data
  if (length > 0 && typeof data[0] !== 'number') return null
  const numbers = newNumbers(length)
  for (let i = 0; i < length; i++) {
    const value = data[i]
    if (typeof value !== 'number') return null
    numbers[i] = value
  }
  return numbers
}

/** Appends the numbers of `value`, which stands at `place`, to `values`; the first of each depth tells its extent. */
function collect(value: unknown, place: number[], shape: number[], values: (number | bigint)[]): void {
  const depth = place.length
  if (Array.isArray(value)) {
    if (depth >= DEEPEST) throw refused(`the arrays are nested more than ${DEEPEST} deep`)
    if (shape.length === depth && values.length === 0) shape.push(value.length)
    if (shape.length === depth) throw refused(`expected a number at ${at(place)}, got ${formatValue(value)}`)
    if (shape[depth] !== value.length) {
      throw refused(
        `the arrays are ragged: expected ${shape[depth]} values at ${at(place)}, got ${value.length}`,
      )
    }
    for (let i = 0; i < value.length; i++) {
      place.push(i)
      collect(value[i], place, shape, values)
      place.pop()
    }
    return
  }
  if (typeof value === 'boolean' || typeof value === 'number' || typeof value === 'bigint') {
    if (depth !== shape.length)
      throw refused(`the arrays are ragged: expected an array at ${at(place)}, got ${formatValue(value)}`)
    values.push(typeof value === 'boolean' ? Number(value) : value)
    return
  }
  throw refused(`expected a number at ${at(place)}, got ${formatValue(value)}`)
}

const at = (place: readonly number[]) =>
  place.length === 0 ? 'the top' : place.map((index) => `[${index}]`).join('')

const [LEAST, MOST] = [-(2n ** 63n), 2n ** 63n - 1n]

/** A value of int64: fractions are cut off, as `torch.tensor` does. */
function toInt64(value: number | bigint): bigint {
  if (typeof value === 'number' && !Number.isFinite(value)) throw refused(`${value} is no value of int64`)
  const whole = typeof value === 'bigint' ? value : BigInt(Math.trunc(value))
  if (whole < LEAST || whole > MOST) throw refused(`${formatValue(value)} is out of the range of int64`)
  return whole
}

function valuesOfNumbers(numbers: Float64Array, shape: readonly number[], dtype: DType): Values {
  const outside = numbers.find((value) => !isInRange(value, dtype))
  if (outside !== undefined) throw refused(`${outside} is out of the range of ${dtype}`)
  return { dtype, shape, numbers }
}

/** Whether an integer dtype has the value, fractions cut off. Floats have them all, rounded. */
export function isInRange(value: number, dtype: DType): boolean {
  if (dtype === 'uint8') return value > -1 && value < 256
  return dtype === 'int64' ? value >= -(2 ** 63) && value < 2 ** 63 : true
}
