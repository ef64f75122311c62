/** A file of torch.save: a zip archive with a pickle, `data.pkl`, and a file of raw values for every storage. */
import { endianness } from 'node:os'
import { SpikenormError } from '../errors.js'
import { fileError } from '../file-error.js'
import { quote, unquoted } from '../format-value.js'
import { type Tensor, tensor } from '../tensor.js'
import { type PickledTensor, PickleError } from './pickled-values.js'
import { negate, type StoredValues, storedAs } from './stored-dtype.js'
import { unpickle } from './unpickle.js'
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
    const isBig = order?.size === 3 && new TextDecoder().decode(zip.read(order)) === 'big'
    this.#isSwapped = isBig !== (endianness() === 'BE')
  }

  /** Opens a file for as long as `body` runs. */
  static reading<R>(path: string, body: (archive: Archive) => R): R {
    return ZipFile.reading(path, (zip) => body(new Archive(zip)))
  }

  /** The value that was saved, its tensors not read yet. */
  unpickle(skipUnsupported: boolean): unknown {
    const pickle = this.#zip.read(this.#entry('data.pkl'))
    const spend = (bytes: number) => this.#zip.limit.takeObjects(bytes, 'what is pickled')
    try {
      return unpickle(pickle, { skipUnsupported, spend })
    } catch (thrown) {
      throw thrown instanceof PickleError ? fileError(this.path, thrown.message, thrown) : thrown
    }
  }

  #entry(name: string): ZipEntry {
    const entry = this.#zip.entries.get(this.#root + name)
    if (!entry) throw fileError(this.path, `there is no ${unquoted(this.#root + name)} in the archive`)
    return entry
  }

  /**
   * Reads a tensor; `name` is for errors. Throws `ERR_DTYPE` for a dtype that no dtype here holds, and for the conjugate bit,
   * which complex numbers alone have.
   */
  read(pickled: PickledTensor, name: string): Tensor {
    const { dtype, size, stride, storage, offset } = pickled
    const what = `tensor ${quote(name)}`
    const stored = storedAs(dtype.name)
    const bit = pickled.bits.find((one) => one !== 'neg' || dtype.name === 'bool')
    if (stored === undefined || bit !== undefined) {
      const why = stored === undefined ? `dtype ${dtype.name}` : `the bit ${quote(bit as string)}`
      throw new SpikenormError(
        'ERR_DTYPE',
        `${this.path}: ${what} has ${why}, which has no counterpart here; skipUnsupported: true leaves it out`,
      )
    }
    const count = this.#count(size, what)
    const span =
      count === 0 ? 0 : 1 + size.reduce((last, n, axis) => last + (n - 1) * (stride[axis] as number), 0)
    const [start, end] = [offset * dtype.itemSize, (offset + span) * dtype.itemSize]
    let bytes = new Uint8Array()
    if (count > 0) {
      const entry = this.#entry(`data/${storage.key}`)
      const most = Math.min(storage.bytes, entry.size)
      if (!(end <= most)) throw fileError(this.path, `${what} reaches to byte ${end} of a storage of ${most}`)
      this.#zip.limit.takeBytes(count * stored.bytesInMemory, what)
      bytes = this.#zip.read(entry, start, end)
    }
    if (this.#isSwapped) swap(bytes, dtype.itemSize)
    const values = gather(stored.view(bytes.buffer), size, stride, count)
    if (pickled.bits.includes('neg')) negate(values, dtype.name)
    return tensor(stored.convert(values), size, { dtype: stored.dtype })
  }

  /** Number of elements; an extent of 0 makes no room for others that are too large. */
  #count(size: readonly number[], what: string): number {
    const count = size.reduce((product, extent) => product * Math.max(extent, 1), 1)
    if (count > Number.MAX_SAFE_INTEGER) {
      throw fileError(this.path, `${what} has a shape past counting: [${size.join(', ')}]`)
    }
    return size.includes(0) ? 0 : count
  }
}

/** The elements of a view in order, from the part of its storage it reaches over. */
function gather(
  source: StoredValues,
  size: readonly number[],
  stride: readonly number[],
  count: number,
): StoredValues {
  if (isContiguous(size, stride)) return source
  const result = new (source.constructor as new (length: number) => StoredValues)(count)
  // Without axes of 1, which every element would have to be carried through.
  const axes = [...size.keys()].filter((axis) => size[axis] !== 1)
  const [extents, steps] = [
    axes.map((axis) => size[axis] as number),
    axes.map((axis) => stride[axis] as number),
  ]
  const index = new Array<number>(axes.length).fill(0)
  let from = 0
  for (let to = 0; to < count; to++) {
    result[to] = source[from] as never
    for (let axis = axes.length - 1; axis >= 0; axis--) {
      from += steps[axis] as number
      index[axis] = (index[axis] as number) + 1
      if (index[axis] !== extents[axis]) break
      from -= (extents[axis] as number) * (steps[axis] as number)
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
