/** A file of torch.save: a zip archive with a pickle, `data.pkl`, and a file of raw values for every storage. */
import { endianness } from 'node:os'
import { type DType, isDType, typedArrayOf } from '../dtype.js'
import { SpikenormError } from '../errors.js'
import { type Tensor, tensor } from '../tensor.js'
import { fileError } from './file-error.js'
import { type PickledTensor, PickleError } from './pickled-values.js'
import { type UnpickleOptions, unpickle } from './unpickle.js'
import { type ZipEntry, ZipFile } from './zip-file.js'

export class Archive {
  readonly path: string
  readonly #zip: ZipFile
  /** The folder everything is in, named after the file. */
  readonly #root: string
  readonly #isSwapped: boolean

  private constructor(zip: ZipFile) {
    this.path = zip.path
    this.#zip = zip
    const pickles = [...zip.entries.keys()].filter((name) => /^[^/]*\/data\.pkl$/.test(name))
    if (pickles.length !== 1) {
      throw fileError(zip.path, 'a zip archive, but not of torch.save: it has no data.pkl in a folder')
    }
    this.#root = (pickles[0] as string).slice(0, -'data.pkl'.length)
    const order = zip.entries.get(`${this.#root}byteorder`)
    const isBig = order !== undefined && new TextDecoder().decode(zip.read(order)) === 'big'
    this.#isSwapped = isBig !== (endianness() === 'BE')
  }

  /** Opens a file for as long as `body` runs. */
  static reading<R>(path: string, body: (archive: Archive) => R): R {
    return ZipFile.reading(path, (zip) => body(new Archive(zip)))
  }

  /** The value that was saved, its tensors not read yet. */
  unpickle(options: UnpickleOptions): unknown {
    const pickle = this.#zip.read(this.#entry('data.pkl'))
    try {
      return unpickle(pickle, options)
    } catch (thrown) {
      throw thrown instanceof PickleError ? fileError(this.path, thrown.message, thrown) : thrown
    }
  }

  #entry(name: string): ZipEntry {
    const entry = this.#zip.entries.get(this.#root + name)
    if (!entry) throw fileError(this.path, `there is no ${this.#root}${name} in the archive`)
    return entry
  }

  /** Reads a tensor; `name` is for errors. Throws `ERR_DTYPE` for a dtype that has no counterpart. */
  read(pickled: PickledTensor, name: string): Tensor {
    const { dtype, size, storage } = pickled
    if (!isDType(dtype.name)) {
      throw new SpikenormError(
        'ERR_DTYPE',
        `${this.path}: tensor '${name}' has dtype ${dtype.name}, which has no counterpart here`,
      )
    }
    const count = size.reduce((product, extent) => product * extent, 1)
    if (count === 0) return tensor(typedArrayOf(dtype.name, new ArrayBuffer(0)), size, { dtype: dtype.name })
    const span = size.reduce(
      (last, extent, axis) => last + (extent - 1) * (pickled.stride[axis] as number),
      0,
    )
    const [start, end] = [pickled.offset, pickled.offset + span + 1].map((at) => at * dtype.itemSize)
    const entry = this.#entry(`data/${storage.key}`)
    if ((end as number) > Math.min(storage.bytes, entry.size)) {
      throw fileError(
        this.path,
        `tensor '${name}' reaches to byte ${end} of a storage of ${Math.min(storage.bytes, entry.size)}`,
      )
    }
    const bytes = this.#zip.read(entry, start, end)
    if (this.#isSwapped) swap(bytes, dtype.itemSize)
    const values = gather(bytes.buffer, dtype.name, pickled, count, this.path)
    return tensor(values, size, { dtype: dtype.name })
  }
}

type Values = ReturnType<typeof typedArrayOf>

/** The elements of a view in order, from the part of its storage it reaches over. */
function gather(
  buffer: ArrayBuffer,
  dtype: DType,
  { size, stride }: PickledTensor,
  count: number,
  path: string,
): Values {
  const source = typedArrayOf(dtype, buffer)
  if (isContiguous(size, stride)) return source
  let result: Values
  try {
    result = typedArrayOf(dtype, new ArrayBuffer(count * source.BYTES_PER_ELEMENT))
  } catch (thrown) {
    // A view with strides of 0 may be larger than any file.
    throw new SpikenormError('ERR_OUT_OF_MEMORY', `${path}: a tensor of ${count} elements`, { cause: thrown })
  }
  const index = new Array<number>(size.length).fill(0)
  let from = 0
  for (let to = 0; to < count; to++) {
    result[to] = source[from] as never
    for (let axis = size.length - 1; axis >= 0; axis--) {
      from += stride[axis] as number
      index[axis] = (index[axis] as number) + 1
      if (index[axis] !== size[axis]) break
      from -= (size[axis] as number) * (stride[axis] as number)
      index[axis] = 0
    }
  }
  return result
}

function isContiguous(size: readonly number[], stride: readonly number[]): boolean {
  let expected = 1
  for (let axis = size.length - 1; axis >= 0; axis--) {
    if (size[axis] !== 1 && stride[axis] !== expected) return false
    expected *= size[axis] as number
  }
  return true
}

/** Reverses the bytes of every element, in place. */
function swap(bytes: Uint8Array, itemSize: number): void {
  if (itemSize === 1) return
  for (let at = 0; at < bytes.length; at += itemSize) bytes.subarray(at, at + itemSize).reverse()
}
