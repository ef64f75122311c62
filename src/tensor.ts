/** Tensors: contiguous values on a device, with the dtypes of PyTorch. */
import { isMainThread } from 'node:worker_threads'
import { type Device, parseDevice } from './device.js'
import { type DType, dtypeOfData, isDType, type TensorData, typedArrayOf } from './dtype.js'
import { type ErrorCode, SpikenormError } from './errors.js'
import { Handle } from './handle.js'
import { native } from './native.js'

/**
 * A contiguous tensor on a device, made by {@link tensor}, {@link full}, {@link zeros} and {@link ones}. Its values change
 * only through the optimisers of parameters and through `copy_`. The memory lies outside V8's heap; it is freed by
 * `dispose()`, at the end of a `using` block, or after garbage collection.
 */
export class Tensor extends Handle {
  #shape: readonly number[] | undefined
  #dtype: DType | undefined
  #device: Device | undefined

  /** Extents, slowest axis first. */
  get shape(): readonly number[] {
    this.#shape ??= Object.freeze(native.tensorShape(this.id))
    return this.#shape
  }

  /** Type of the elements. */
  get dtype(): DType {
    this.#dtype ??= native.tensorDtype(this.id) as DType
    return this.#dtype
  }

  /** `'cpu'` or `'cuda:N'`. */
  get device(): Device {
    this.#device ??= native.tensorDevice(this.id) as Device
    return this.#device
  }

  /** Number of elements. */
  get size(): number {
    return this.shape.reduce((product, extent) => product * extent, 1)
  }

  /**
   * A copy of the values: Float64Array, Float32Array, Uint16Array (bits of float16 and bfloat16), Uint8Array or
   * BigInt64Array. On a CUDA device it waits for what computes them.
   */
  toTypedArray(): Float64Array | Float32Array | Uint16Array | Uint8Array | BigInt64Array {
    return typedArrayOf(this.dtype, native.tensorRead(this.id) as ArrayBuffer)
  }

  /**
   * The values themselves where {@link toTypedArray} copies them, as `tensor.numpy()`: writing to the array writes to the
   * tensor, and either keeps the memory alive. A copy after all in a worker thread, in a runtime that allows no such
   * array, of a tensor made by {@link Tensor.fromTypedArray}, and beyond 256 MiB at once. Throws `ERR_DEVICE` on a CUDA
   * device.
   */
  asTypedArray(): Float64Array | Float32Array | Uint16Array | Uint8Array | BigInt64Array {
    // A worker's end would free memory that a transfer may have brought to another thread.
    const canShare = isMainThread || this.device !== 'cpu'
    const buffer = canShare ? native.tensorSharedBuffer(this.id) : null
    return buffer ? typedArrayOf(this.dtype, buffer) : this.toTypedArray()
  }

  /** A copy of the values as numbers; int64 beyond 2^53 is rounded. */
  toFloat64Array(): Float64Array {
    const wide = native.tensorCast(this.id, 'float64')
    try {
      return new Float64Array(native.tensorRead(wide) as ArrayBuffer)
    } finally {
      native.free(wide)
    }
  }

  /** The only value of a tensor of one element. Throws `ERR_SHAPE` for any other. */
  item(): number {
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
    if (!isDType(deviceOrDtype)) {
      const device = parseDevice(deviceOrDtype)
      return device === this.device ? this : new Tensor(native.tensorToDevice(this.id, device))
    }
    return deviceOrDtype === this.dtype ? this : new Tensor(native.tensorCast(this.id, deviceOrDtype))
  }

  /** A copy of its own. */
  clone(): Tensor {
    return new Tensor(native.tensorCast(this.id, this.dtype))
  }

  /**
   * The same values under another shape of as many elements; shares memory. One extent may be -1 and is worked out.
   * Throws `ERR_SHAPE` where the numbers of elements differ.
   */
  reshape(shape: readonly number[]): Tensor {
    return new Tensor(native.tensorReshape(this.id, inferExtent(wholeExtents(shape), this.size)))
  }

  /**
   * Overwrites the values in place with those of a tensor of the same shape on any device, rounded where dtypes differ.
   * Throws `ERR_SHAPE`.
   */
  copy_(source: Tensor): this {
    native.tensorCopy(this.id, source.id)
    return this
  }

  /** @internal Takes over another tensor's memory, dtype and device, keeping identity. */
  replaceWith(id: number): void {
    native.tensorReplace(this.id, id)
    this.#shape = undefined
    this.#dtype = undefined
    this.#device = undefined
  }

  /**
   * A tensor on the CPU over a typed array's memory, without a copy, as `torch.from_numpy`. It is never written to
   * (`copy_` throws `ERR_ARGUMENT`); what is written to the array is seen by all that is computed later, the backward of
   * a recorded forward too. Once the array's buffer has been transferred or shrunk, reading it throws `ERR_DISPOSED`.
   * Throws `ERR_DTYPE` for an array that would have to be converted, `ERR_ARGUMENT` for one over a SharedArrayBuffer.
   */
  static fromTypedArray(
    data: Exclude<TensorData, readonly number[]>,
    shape: readonly number[],
    options: { dtype?: DType } = {},
  ): Tensor {
    const { dtype, isStored } = dtypeOfData(data, options.dtype)
    if (!isStored) {
      throw new SpikenormError(
        'ERR_DTYPE',
        `fromTypedArray: data: expected a typed array that holds ${dtype} as it is; tensor() converts`,
      )
    }
    return new Tensor(native.tensorOverArray(data, wholeExtents(shape), dtype))
  }

  /**
   * A tensor over CUDA memory of another owner, without a copy. The memory must stay allocated for as long as the tensor
   * and whatever was computed or saved from it. `stream`: the CUstream handle whose present work comes first (0n is the
   * default stream). Throws `ERR_ARGUMENT` or `ERR_DEVICE` for an address that is not of the device, or too short.
   */
  static fromDevicePointer(memory: DevicePointer): Tensor {
    const { ptr, shape, dtype, stream } = memory
    const device = parseDevice(memory.device ?? 'cuda')
    return new Tensor(native.tensorFromDevicePointer(ptr, wholeExtents(shape), dtype, device, stream))
  }

  /**
   * Address of the first value on its CUDA device. What computes the values may still be running: use it on
   * `cuda.stream()`, or after `cuda.synchronize()`. Throws `ERR_DEVICE` on the CPU.
   */
  get devicePointer(): bigint {
    return native.tensorDevicePointer(this.id)
  }

  /** @internal What Node prints. */
  [Symbol.for('nodejs.util.inspect.custom')](): string {
    if (this.isDisposed) return `${this.constructor.name} (disposed)`
    return `${this.constructor.name} { shape: [${this.shape.join(', ')}], dtype: '${this.dtype}', device: '${this.device}' }`
  }
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

/** N-API would cut 1.5 down to 1 and read NaN as 0, so whole numbers are asked for here. */
function wholeExtents(shape: readonly number[]): number[] {
  if (!Array.isArray(shape) || !shape.every(Number.isSafeInteger)) {
    throw new SpikenormError('ERR_SHAPE', `shape: expected whole numbers, got [${String(shape)}]`)
  }
  return [...shape]
}

function inferExtent(shape: readonly number[], size: number): number[] {
  const inferred = shape.indexOf(-1)
  if (inferred < 0) return [...shape]
  const rest = shape.reduce((product, extent, axis) => (axis === inferred ? product : product * extent), 1)
  if (rest <= 0 || size % rest !== 0) {
    throw new SpikenormError('ERR_SHAPE', `reshape: ${size} elements do not fit [${shape.join(', ')}]`)
  }
  return shape.map((extent, axis) => (axis === inferred ? size / rest : extent))
}

/**
 * A tensor that is trained: `grad` accumulates in backward and is `null` before the first one and after `zeroGrad()`. Made
 * by modules; optimisers move its values.
 */
export class Parameter extends Tensor {
  #grad: Tensor | null = null

  /**
   * Gradient of the parameter's shape, dtype and device, or `null`. Setting it throws `ERR_DTYPE`, `ERR_SHAPE` or
   * `ERR_DEVICE` where it is of another.
   */
  get grad(): Tensor | null {
    return this.#grad
  }

  set grad(grad: Tensor | null) {
    if (grad) {
      const describe = ({ dtype, shape, device }: Tensor) => `${dtype} [${shape.join(', ')}] on ${device}`
      const refuse = (code: ErrorCode) => {
        throw new SpikenormError(code, `grad: expected ${describe(this)}, got ${describe(grad)}`)
      }
      if (grad.dtype !== this.dtype) refuse('ERR_DTYPE')
      if (grad.shape.join() !== this.shape.join()) refuse('ERR_SHAPE')
      if (grad.device !== this.device) refuse('ERR_DEVICE')
    }
    this.#grad = grad
  }

  /** @internal The native number of the gradient, 0 where there is none: what a backward adds to. */
  get gradId(): number {
    return this.#grad === null || this.#grad.isDisposed ? 0 : this.#grad.id
  }

  /** @internal Adds a native gradient, which is taken over or freed. */
  accumulate(gradient: number): void {
    if (this.#grad === null || this.#grad.isDisposed) {
      this.#grad = new Tensor(gradient)
    } else {
      native.tensorAccumulate(this.#grad.id, gradient)
      native.free(gradient)
    }
  }

  /** Frees the parameter and its gradient. */
  override dispose(): void {
    this.#grad?.dispose()
    super.dispose()
  }
}

/** Type and place of a new tensor. */
export interface TensorOptions {
  /** Taken from the data where it is a typed array; `'float32'` for numbers. */
  dtype?: DType
  /** Default `'cpu'`. */
  device?: Device
}

/**
 * A new tensor with a copy of `data`. For float16 and bfloat16 give a Uint16Array of bits, a Float16Array where
 * the runtime has one, or floats, which are rounded. Throws `ERR_SHAPE` when the number of values does not fit, `ERR_DTYPE`
 * when a Uint16Array comes without a dtype, `ERR_ARGUMENT` for data that is neither numbers nor a typed array.
 */
export function tensor(data: TensorData, shape: readonly number[], options: TensorOptions = {}): Tensor {
  const device = parseDevice(options.device ?? 'cpu')
  const { dtype, isStored } = dtypeOfData(data, options.dtype)
  if (isStored && ArrayBuffer.isView(data)) {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    return new Tensor(native.tensorFromBytes(bytes, wholeExtents(shape), dtype, device))
  }
  const numbers = Float64Array.from(data as ArrayLike<number | bigint>, Number)
  return new Tensor(native.tensorFromNumbers(numbers, wholeExtents(shape), dtype, device))
}

/** A new tensor filled with `value`, as `torch.full`; float32 unless said otherwise. Throws `ERR_SHAPE`. */
export function full(shape: readonly number[], value: number, options: TensorOptions = {}): Tensor {
  const device = parseDevice(options.device ?? 'cpu')
  return new Tensor(native.tensorFull(wholeExtents(shape), value, options.dtype ?? 'float32', device))
}

/** A new tensor of zeros, as `torch.zeros`; float32 unless said otherwise. Throws `ERR_SHAPE`. */
export function zeros(shape: readonly number[], options: TensorOptions = {}): Tensor {
  return full(shape, 0, options)
}

/** A new tensor of ones, as `torch.ones`; float32 unless said otherwise. Throws `ERR_SHAPE`. */
export function ones(shape: readonly number[], options: TensorOptions = {}): Tensor {
  return full(shape, 1, options)
}

/** @internal A new parameter filled with `value`. */
export function newParameter(
  shape: readonly number[],
  value: number,
  { dtype, device }: Required<TensorOptions>,
): Parameter {
  return new Parameter(native.tensorFull([...shape], value, dtype, device))
}
