/** Tensors: contiguous values on a device, with the dtypes of PyTorch. */
import { isMainThread } from 'node:worker_threads'
import {
  addressOf64Bits,
  anyDType,
  anything,
  argumentError,
  device,
  isPlainObject,
  type OptionChecks,
  readOptions,
  readTarget,
  type Signature,
} from './arguments.js'
import { newArrayBuffer, newTensorBuffer } from './array-buffer.js'
import { type Device, parseDevice } from './device.js'
import { bytesOf, type DType, dtypeOfData, type TensorData, type TypedArray, typedArrayOf } from './dtype.js'
import { SpikenormError } from './errors.js'
import { nameOfClass } from './format-value.js'
import { Handle, isHandle } from './handle.js'
import { native } from './native.js'
import { keepValues } from './rollback.js'
import { extentsOf, inferExtent } from './shape.js'
import { isInRange, readValues } from './tensor-data.js'

const FROM_TYPED_ARRAY: Signature<{ dtype?: DType }> = {
  call: 'Tensor.fromTypedArray',
  leading: ['data', 'shape'],
  options: { dtype: anyDType },
  positional: ['dtype'],
}

const FROM_DEVICE_POINTER: Signature<DevicePointer> = {
  call: 'Tensor.fromDevicePointer',
  leading: [],
  options: { ptr: addressOf64Bits, shape: anything, dtype: anyDType, device, stream: addressOf64Bits },
}

/**
 * A contiguous tensor on a device, made by {@link tensor}, {@link full}, {@link zeros} and {@link ones}. Its values change
 * only through the optimisers of parameters and through `copy_`. The memory lies outside V8's heap; it is freed by
 * `dispose()`, at the end of a `using` block, or after garbage collection.
 */
export class Tensor extends Handle {
  #shape: readonly number[] | undefined
  #dtype: DType | undefined
  #device: Device | undefined

  /** @internal */
  protected override get howToMakeOne(): string {
    return 'Tensor: tensors are made by tensor(data, shape), full(), zeros() and ones(), not with new'
  }

  /** Extents, slowest axis first. */
  get shape(): readonly number[] {
    this.#shape ??= Object.freeze(native.tensorShape(this.idFor('shape')))
    return this.#shape
  }

  /** Type of the elements. */
  get dtype(): DType {
    this.#dtype ??= native.tensorDtype(this.idFor('dtype')) as DType
    return this.#dtype
  }

  /** `'cpu'` or `'cuda:N'`. */
  get device(): Device {
    this.#device ??= native.tensorDevice(this.idFor('device')) as Device
    return this.#device
  }

  /** Number of elements. */
  get size(): number {
    return this.shape.reduce((product, extent) => product * extent, 1)
  }

  /**
   * A copy of the values: Float64Array, Float32Array, Uint16Array (bits of float16 and bfloat16), Uint8Array or
   * BigInt64Array. On a CUDA device it waits for what computes them. Throws `ERR_OUT_OF_MEMORY`.
   */
  toTypedArray(): Float64Array | Float32Array | Uint16Array | Uint8Array | BigInt64Array {
    const id = this.idFor('toTypedArray')
    return typedArrayOf(this.dtype, this.#read(id))
  }

  /** The bytes of tensor `id`, which is of this one's size. */
  #read(id: number, dtype: DType = this.dtype): ArrayBuffer {
    const buffer = newArrayBuffer(this.size * bytesOf(dtype))
    native.tensorRead(id, buffer)
    return buffer
  }

  /**
   * The values themselves where {@link toTypedArray} copies them, as `tensor.numpy()`: writing to the array writes to the
   * tensor, and either keeps the memory alive. The first call moves the values to memory of V8's. It stays the tensor's:
   * `postMessage` and `structuredClone` refuse to transfer it. A copy for a tensor made by {@link Tensor.fromTypedArray} and
   * for one without elements. Throws `ERR_DEVICE` on a CUDA device, `ERR_OUT_OF_MEMORY`.
   */
  asTypedArray(): Float64Array | Float32Array | Uint16Array | Uint8Array | BigInt64Array {
    const id = this.idFor('asTypedArray')
    if (this.size === 0 && this.device === 'cpu') return this.toTypedArray()
    let buffer = native.tensorBuffer(id)
    if (buffer === null) return this.toTypedArray()
    if (typeof buffer === 'number') {
      const bytes = buffer
      buffer = newTensorBuffer(bytes)
      native.tensorMoveToBuffer(id, buffer)
    }
    return typedArrayOf(this.dtype, buffer, native.tensorByteOffset(id), this.size)
  }

  /** @internal The values of a tensor on the CPU that is used up by it: its memory, or a copy where others share that. */
  take(): Float64Array | Float32Array | Uint16Array | Uint8Array | BigInt64Array {
    // The end of a worker would free memory that a transfer may have brought to another thread.
    const { id, dtype } = this
    const buffer = isMainThread ? native.tensorTakeBuffer(id) : null
    const values = buffer ? typedArrayOf(dtype, buffer) : this.toTypedArray()
    this.dispose()
    return values
  }

  /** A copy of the values as numbers; int64 beyond 2^53 is rounded. */
  toFloat64Array(): Float64Array {
    const wide = native.tensorCast(this.idFor('toFloat64Array'), 'float64')
    try {
      return new Float64Array(this.#read(wide, 'float64'))
    } finally {
      native.free(wide)
    }
  }

  /** The only value of a tensor of one element. Throws `ERR_SHAPE` for any other. */
  item(): number {
    this.idFor('item')
    if (this.size !== 1) {
      throw new SpikenormError(
        'ERR_SHAPE',
        `item: expected one element, got shape [${this.shape.join(', ')}]`,
      )
    }
    return this.toFloat64Array()[0] as number
  }

  /**
   * A copy in another dtype (each value rounded once) or on another device; itself if nothing changes. Throws `ERR_DEVICE`
   * or `ERR_CUDA_UNAVAILABLE` for a device that cannot be used.
   */
  to(deviceOrDtype: Device | DType): Tensor {
    const { device, dtype } = readTarget('to', deviceOrDtype, arguments)
    const id = this.idFor('to')
    if (device !== undefined) {
      return device === this.device ? this : new Tensor(native.tensorToDevice(id, device))
    }
    return dtype === this.dtype ? this : new Tensor(native.tensorCast(id, dtype))
  }

  /** A copy of its own. */
  clone(): Tensor {
    return new Tensor(native.tensorCast(this.idFor('clone'), this.dtype))
  }

  /**
   * The same values under another shape of as many elements; shares memory. One extent may be -1 and is worked out.
   * Throws `ERR_SHAPE` where the numbers of elements differ.
   */
  reshape(shape: readonly number[]): Tensor
  /** The extents may also stand one by one: `x.reshape(2, -1)`. */
  reshape(...shape: number[]): Tensor
  reshape(first: readonly number[] | number, ...rest: number[]): Tensor {
    const extents = extentsOf('reshape', typeof first === 'number' ? [first, ...rest] : first)
    return new Tensor(native.tensorReshape(this.idFor('reshape'), inferExtent(extents, this.size)))
  }

  /**
   * Overwrites the values in place with those of a tensor of the same shape on any device, rounded where dtypes differ.
   * Throws `ERR_SHAPE`.
   */
  copy_(source: Tensor): this {
    const id = this.idFor('copy_')
    const from = expectTensor('copy_', 'source', source).idFor('copy_: source')
    keepValues(this)
    native.tensorCopy(id, from)
    return this
  }

  /** @internal Told that it has become another tensor's memory, dtype and device natively. */
  hasBeenReplaced(): void {
    this.#shape = undefined
    this.#dtype = undefined
    this.#device = undefined
  }

  /**
   * A tensor on the CPU over a typed array's memory, without a copy, as `torch.from_numpy`. It is never written to
   * (`copy_` throws `ERR_ARGUMENT`), unless the array is that of a tensor's {@link Tensor.asTypedArray}; what is written to the array is seen by all that is computed later, the backward of
   * a recorded forward too. Once the array's buffer has been transferred or shrunk, reading it throws `ERR_DISPOSED`.
   * Throws `ERR_DTYPE` for an array that would have to be converted, `ERR_ARGUMENT` for one over a SharedArrayBuffer.
   */
  static fromTypedArray(data: TypedArray, shape: readonly number[], options?: { dtype?: DType }): Tensor {
    const checked = readOptions('fromTypedArray', options, arguments, FROM_TYPED_ARRAY)
    const { dtype, isStored } = dtypeOfData(data, checked.dtype)
    if (!isStored) {
      throw new SpikenormError(
        'ERR_DTYPE',
        `fromTypedArray: data: expected a typed array that holds ${dtype} as it is; tensor() converts`,
      )
    }
    return new Tensor(native.tensorOverArray(data, extentsOf('fromTypedArray', shape), dtype))
  }

  /**
   * A tensor over CUDA memory of another owner, without a copy. The memory must stay allocated for as long as the tensor
   * and whatever was computed or saved from it. `stream`: the CUstream handle whose present work comes first (0n is the
   * default stream). Throws `ERR_ARGUMENT` or `ERR_DEVICE` for an address that is not of the device, or too short.
   */
  static fromDevicePointer(memory: DevicePointer): Tensor {
    const given = readOptions('fromDevicePointer', memory, arguments, FROM_DEVICE_POINTER)
    const { ptr, shape, dtype, stream } = given
    const device = given.device ?? parseDevice('cuda', 'fromDevicePointer')
    if (ptr === undefined) throw argumentError('fromDevicePointer', 'ptr', 'an address, a bigint', ptr)
    if (dtype === undefined) throw argumentError('fromDevicePointer', 'dtype', 'a dtype', dtype, 'ERR_DTYPE')
    return new Tensor(
      native.tensorFromDevicePointer(ptr, extentsOf('fromDevicePointer', shape), dtype, device, stream),
    )
  }

  /**
   * Address of the first value on its CUDA device. What computes the values may still be running: use it on
   * `cuda.stream()`, or after `cuda.synchronize()`. Throws `ERR_DEVICE` on the CPU.
   */
  get devicePointer(): bigint {
    return native.tensorDevicePointer(this.idFor('devicePointer'))
  }

  /** Shape, dtype and device, and on the CPU the first values: `Tensor { shape: [2], dtype: 'float32', device: 'cpu', values: [1, 2] }`. */
  override toString(): string {
    const name = nameOfClass(this)
    if (this.isDisposed) return `${name} (disposed)`
    const { shape, dtype, device } = this
    const values = device === 'cpu' && this.size <= MOST_SHOWN ? `, values: ${formatNumbers(this)}` : ''
    return `${name} { shape: [${shape.join(', ')}], dtype: '${dtype}', device: '${device}'${values} }`
  }

  /** What JSON says of a tensor: its shape, dtype and device, not its values, which `saveSafetensors` writes. */
  toJSON(): object {
    if (this.isDisposed) return { isDisposed: true }
    return { shape: this.shape, dtype: this.dtype, device: this.device }
  }

  /** @internal What Node prints. */
  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString()
  }
}

/** A tensor of more elements is described without reading any. */
const MOST_SHOWN = 1000
const MOST_VALUES = 16

/** The first values, with as many digits as PyTorch prints. */
function formatNumbers(x: Tensor): string {
  let numbers: Float64Array
  try {
    numbers = x.toFloat64Array()
  } catch (thrown) {
    // Such as a typed array whose buffer has been transferred: a description throws nothing.
    return thrown instanceof SpikenormError ? `none (${thrown.code})` : 'none'
  }
  const rest = x.size - MOST_VALUES
  const values = Array.from(numbers.subarray(0, MOST_VALUES), (value) => Number(value.toPrecision(5)))
  return `[${values.join(', ')}${rest > 0 ? `, … ${rest} more` : ''}]`
}

/** What {@link Tensor.fromDevicePointer} takes. */
export interface DevicePointer {
  /** Address of the first value, aligned to the dtype. */
  ptr: bigint
  /** Extents, slowest axis first; the memory is contiguous. */
  shape: readonly number[]
  /** Type of the elements. */
  dtype: DType
  /** Default `'cuda'`. */
  device?: Device
  /** CUstream handle whose present work comes first; left out, the memory is taken to be ready. */
  stream?: bigint
}

/** Type and place of a new tensor. */
export interface TensorOptions {
  /** Taken from the data where it is a typed array; `'float32'` for numbers. */
  dtype?: DType
  /** Default `'cpu'`. */
  device?: Device
}

const OPTIONS: OptionChecks<TensorOptions> = { dtype: anyDType, device }
const TENSOR: Signature<TensorOptions> = {
  call: 'tensor',
  leading: ['data', 'shape'],
  required: 1,
  options: OPTIONS,
  positional: ['dtype', 'device'],
}
const FULL: Signature<TensorOptions> = {
  call: 'full',
  leading: ['shape', 'value'],
  options: OPTIONS,
  positional: ['dtype', 'device'],
}

/**
 * A new tensor with a copy of `data`: a typed array, or numbers in arrays, nested as deep as the tensor has axes. Without
 * `shape`, that of the data. For float16 and bfloat16 give a Uint16Array of bits, a Float16Array where the runtime has one, or
 * floats, which are rounded. As in `torch.tensor`, integer dtypes cut fractions off and refuse what is out of their range.
 * Throws `ERR_SHAPE` when the number of values does not fit, `ERR_DTYPE` when a Uint16Array comes without a dtype,
 * `ERR_ARGUMENT` for data that holds anything but numbers and for ragged arrays, `ERR_DISPOSED` for a typed array whose buffer
 * has been transferred.
 */
export function tensor(data: TensorData, shape: readonly number[], options?: TensorOptions): Tensor
/** As above, of the shape of `data`. */
export function tensor(data: TensorData, options?: TensorOptions): Tensor
export function tensor(
  data: TensorData,
  second?: readonly number[] | TensorOptions,
  third?: TensorOptions,
): Tensor {
  const hasShape = second !== undefined && !isPlainObject(second)
  const options = hasShape || second === undefined ? third : second
  const { dtype: wanted, device = 'cpu' } = readOptions('tensor', options, arguments, TENSOR)
  const { dtype, shape: natural, bytes, numbers } = readValues(data, wanted)
  const shape = hasShape ? extentsOf('tensor', second) : [...natural]
  if (natural.length > 1 && shape.join() !== natural.join()) {
    const expected = `[${natural.join(', ')}], as the arrays are nested`
    throw argumentError('tensor', 'shape', expected, shape)
  }
  return new Tensor(
    bytes
      ? native.tensorFromBytes(shape, dtype, device, bytes)
      : native.tensorFromNumbers(shape, dtype, device, numbers as Float64Array),
  )
}

/**
 * A new tensor filled with `value`, as `torch.full`; float32 unless said otherwise. Throws `ERR_SHAPE`, and `ERR_ARGUMENT`
 * for a value that the dtype does not have.
 */
export function full(shape: readonly number[], value: number, options?: TensorOptions): Tensor {
  const { dtype = 'float32', device = 'cpu' } = readOptions('full', options, arguments, FULL)
  const extents = extentsOf('full', shape)
  if (typeof value !== 'number') throw argumentError('full', 'value', 'a number', value)
  if (!isInRange(value, dtype)) throw argumentError('full', 'value', `a value of ${dtype}`, value)
  return new Tensor(native.tensorFull(extents, value, dtype, device))
}

/** A new tensor of zeros, as `torch.zeros`; float32 unless said otherwise. Throws `ERR_SHAPE`. */
export function zeros(shape: readonly number[], options?: TensorOptions): Tensor
/** The extents may also stand one by one: `zeros(2, 3)`. */
export function zeros(...shape: [...number[], TensorOptions] | number[]): Tensor
export function zeros(...given: unknown[]): Tensor {
  return filled('zeros', 0, given)
}

/** A new tensor of ones, as `torch.ones`; float32 unless said otherwise. Throws `ERR_SHAPE`. */
export function ones(shape: readonly number[], options?: TensorOptions): Tensor
/** The extents may also stand one by one: `ones(2, 3)`. */
export function ones(...shape: [...number[], TensorOptions] | number[]): Tensor
export function ones(...given: unknown[]): Tensor {
  return filled('ones', 1, given)
}

/** What `zeros` and `ones` are given: a shape, or its extents one by one, and options behind them. */
function filled(where: string, value: number, given: readonly unknown[]): Tensor {
  const isSpread = typeof given[0] === 'number'
  const count = given.findIndex((one) => typeof one !== 'number')
  const extents = isSpread ? given.slice(0, count < 0 ? given.length : count) : given[0]
  const rest = isSpread ? given.slice((extents as unknown[]).length) : given.slice(1)
  const { dtype = 'float32', device = 'cpu' } = readOptions(where, rest[0], [extents, ...rest], {
    call: where,
    leading: ['shape'],
    options: OPTIONS,
    positional: ['dtype', 'device'],
  })
  return new Tensor(native.tensorFull(extentsOf(where, extents), value, dtype, device))
}

/** What may have been meant by a value in the place of a tensor. */
function adviceFor(value: unknown): string {
  if (Array.isArray(value) || ArrayBuffer.isView(value)) return 'write tensor(data, shape)'
  const isLoss = value !== null && typeof value === 'object' && nameOfClass(value) === 'LossAndGrad'
  return isLoss ? 'write its gradient: result.grad' : ''
}

/** @internal `value`, which is a tensor; throws `ERR_ARGUMENT` otherwise. */
export function expectTensor(where: string | undefined, name: string, value: unknown): Tensor {
  if (value instanceof Tensor && isHandle(value)) return value
  const isLike =
    value !== null && typeof value === 'object' && /^(Tensor|Parameter)$/.test(nameOfClass(value))
  const kind = isLike ? 'a Tensor of this library, not a proxy and not of another copy of it' : 'a Tensor'
  throw argumentError(where, name, kind, value).withAdvice(adviceFor(value))
}
