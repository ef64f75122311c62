/** Checkpoints of torch.save (`.pt`, `.pth`): a state dict out of one, or all there is. */
import { argumentError, boolean, type Check, readOptions, type Signature } from '../arguments.js'
import { SpikenormError } from '../errors.js'
import { fileError } from '../file-error.js'
import { type FilePath, pathOf } from '../file-path.js'
import { quote, unquoted } from '../format-value.js'
import type { Tensor } from '../tensor.js'
import { Archive } from './archive.js'
import {
  PickledDict,
  PickledDType,
  PickledGlobal,
  PickledStorage,
  PickledTensor,
  Unsupported,
} from './pickled-values.js'

/** What a checkpoint may hold: tuples, sets and `torch.Size` are arrays, dtypes and devices their names, bytes a Uint8Array. */
export type PyTorchValue =
  | Tensor
  | number
  | bigint
  | string
  | boolean
  | null
  | Uint8Array
  | PyTorchValue[]
  | { [key: string]: PyTorchValue }

/** Options of {@link loadPyTorch} and {@link loadPyTorchCheckpoint}. */
export interface LoadPyTorchOptions {
  /** The key under which the state dict was saved, e.g. `'net'`; an array for keys in keys. Default: the whole file. */
  key?: string | readonly string[]
  /**
   * Whether tensors of dtypes unknown here and objects of other Python classes are left out, instead of being an error.
   * They are never made, nor is their code run. Default false.
   */
  skipUnsupported?: boolean
}

const key: Check<string | readonly string[]> = (where, name, value) => {
  const isKeys = Array.isArray(value) && value.every((one) => typeof one === 'string')
  if (typeof value !== 'string' && !isKeys)
    throw argumentError(where, name, 'a string or an array of strings', value)
  return value
}

const LOAD: Signature<LoadPyTorchOptions> = {
  call: 'loadPyTorch',
  leading: ['path'],
  options: { key, skipUnsupported: boolean },
}

const LOAD_CHECKPOINT: Signature<Pick<LoadPyTorchOptions, 'skipUnsupported'>> = {
  call: 'loadPyTorchCheckpoint',
  leading: ['path'],
  options: { skipUnsupported: boolean },
}

/** Nesting that no checkpoint has. */
const DEEPEST = 200

/**
 * The state dict in a file of `torch.save` (PyTorch 1.6 or later), in the order it was saved; only its tensors are read.
 * Where the file holds more than that (`{ net: …, optimizer: …, epoch: 3 }`) `key` says what to take.
 *
 * bool becomes uint8; int8, int16, int32, uint16 and uint32 become int64. No code in the file is run: what is not a tensor,
 * number, text, or a dict or list of them throws `ERR_FILE` with its name, as do broken files, files that would take far more
 * memory than their size tells of, files without a state dict there, and whole pickled nets. `ERR_DTYPE` for a dtype that no
 * dtype here holds.
 */
export function loadPyTorch(path: FilePath, options: LoadPyTorchOptions = {}): Record<string, Tensor> {
  const where = 'loadPyTorch'
  const { key, skipUnsupported = false } = readOptions(where, options, arguments, LOAD)
  const keys = typeof key === 'string' ? [key] : (key ?? [])
  return reading(pathOf(where, path), skipUnsupported, (archive, root) => {
    const chosen = keys.reduce<unknown>((value, key, depth) => {
      if (value instanceof PickledDict && value.entries.has(key)) return value.entries.get(key)
      const here = keys.slice(0, depth)
      throw fileError(archive.path, `there is no ${show([...here, key])}${whatIsThere(root)}`)
    }, root)
    if (!(chosen instanceof PickledDict)) {
      throw fileError(
        archive.path,
        `${show(keys)} is no dict of tensors, but ${kindOf(chosen)}${whatIsThere(root)}`,
      )
    }
    for (const [key, value] of chosen.entries) {
      if (value instanceof PickledTensor || value instanceof Unsupported) continue
      throw fileError(
        archive.path,
        `${show(keys)} is no state dict: ${keyText(key)} in it is ${kindOf(value)}${whatIsThere(root)}`,
      )
    }
    return new Conversion(archive, skipUnsupported, keys).of(chosen) as Record<string, Tensor>
  })
}

/** Everything in a file of `torch.save`, as `torch.load` gives it; see {@link loadPyTorch} for errors and safety. */
export function loadPyTorchCheckpoint(
  path: FilePath,
  options: Pick<LoadPyTorchOptions, 'skipUnsupported'> = {},
): PyTorchValue {
  const where = 'loadPyTorchCheckpoint'
  const { skipUnsupported = false } = readOptions(where, options, arguments, LOAD_CHECKPOINT)
  return reading(pathOf(where, path), skipUnsupported, (archive, root) => {
    const value = new Conversion(archive, skipUnsupported, []).of(root)
    return value === LEFT_OUT ? null : value
  })
}

function reading<R>(path: string, skipUnsupported: boolean, body: (archive: Archive, root: unknown) => R): R {
  try {
    return Archive.reading(path, (archive) => body(archive, archive.unpickle(skipUnsupported)))
  } catch (thrown) {
    throw asReadingError(path, thrown)
  }
}

/** Anything thrown while a file was read is of the file: arguments have been checked before. */
function asReadingError(path: string, thrown: unknown): SpikenormError {
  if (thrown instanceof SpikenormError) {
    const isOfFile = thrown.code === 'ERR_SHAPE' || thrown.code === 'ERR_ARGUMENT'
    return isOfFile ? fileError(path, thrown.message, thrown) : thrown
  }
  const { message } = thrown as Error
  // What V8 says of an array or a text that it cannot allocate.
  if (thrown instanceof RangeError && /allocation|length/.test(message)) {
    return new SpikenormError('ERR_OUT_OF_MEMORY', `${path}: ${message}`, { cause: thrown })
  }
  return fileError(path, `cannot be read: ${message}`, thrown)
}

const LEFT_OUT = Symbol('left out')

/** Makes plain values and tensors of what was unpickled. What occurs twice is made once. */
class Conversion {
  readonly #archive: Archive
  readonly #skipUnsupported: boolean
  readonly #made = new Map<unknown, PyTorchValue | typeof LEFT_OUT>()
  /** What is being made: meeting it again is a cycle. */
  readonly #open = new Set<unknown>()
  /** The keys under which that is. */
  readonly #place: string[]

  constructor(archive: Archive, skipUnsupported: boolean, place: readonly string[]) {
    this.#archive = archive
    this.#skipUnsupported = skipUnsupported
    this.#place = [...place]
  }

  of(value: unknown): PyTorchValue | typeof LEFT_OUT {
    if (value === null || typeof value !== 'object') return value as PyTorchValue
    const known = this.#made.get(value)
    if (known !== undefined) return known
    if (this.#open.has(value) || this.#open.size > DEEPEST) {
      throw this.#error(`what is under ${show(this.#place.slice(0, 3))} is nested without end`)
    }
    this.#open.add(value)
    const made = this.#make(value)
    this.#open.delete(value)
    this.#made.set(value, made)
    return made
  }

  #under(key: string, value: unknown): PyTorchValue | typeof LEFT_OUT {
    this.#place.push(key)
    const made = this.of(value)
    this.#place.pop()
    return made
  }

  #make(value: object): PyTorchValue | typeof LEFT_OUT {
    if (value instanceof PickledTensor) return this.#tensor(value)
    if (value instanceof PickledDict) return this.#dict(value)
    if (value instanceof Unsupported) return LEFT_OUT
    if (value instanceof Uint8Array) return value
    if (value instanceof PickledDType) return `torch.${value.name}`
    if (Array.isArray(value)) {
      // Positions count in a list: what is left out leaves a null.
      return value.map((item, i) => {
        const made = this.#under(String(i), item)
        return made === LEFT_OUT ? null : made
      })
    }
    if (this.#skipUnsupported) return LEFT_OUT
    throw this.#error(`${show(this.#place)} is ${kindOf(value)}, which is not loaded`)
  }

  #tensor(value: PickledTensor): Tensor | typeof LEFT_OUT {
    try {
      return this.#archive.read(value, this.#place.join('.'))
    } catch (thrown) {
      const isSkipped =
        this.#skipUnsupported && thrown instanceof SpikenormError && thrown.code === 'ERR_DTYPE'
      if (isSkipped) return LEFT_OUT
      throw thrown
    }
  }

  #dict({ entries }: PickledDict): { [key: string]: PyTorchValue } {
    const made = new Map<string, PyTorchValue>()
    for (const [key, value] of entries) {
      if (typeof key === 'object' && key !== null) {
        if (this.#skipUnsupported) continue
        throw this.#error(`${show(this.#place)} has a key that is ${kindOf(key)}`)
      }
      const converted = this.#under(String(key), value)
      if (converted === LEFT_OUT) continue
      // In Python 1 and '1' are two keys.
      if (made.has(String(key))) throw this.#error(`${show(this.#place)} has two keys ${keyText(key)}`)
      made.set(String(key), converted)
    }
    // fromEntries defines keys: one called __proto__ is a key like any other.
    return Object.fromEntries(made)
  }

  #error(what: string): SpikenormError {
    return fileError(this.#archive.path, what)
  }
}

function keyText(key: unknown): string {
  return quote(typeof key === 'object' && key !== null ? kindOf(key) : String(key))
}

/** A place in the file, for messages. */
function show(place: string | readonly string[]): string {
  const keys = typeof place === 'string' ? [place] : place
  return keys.length === 0 ? 'the file' : keys.map(quote).reverse().join(' in ')
}

function kindOf(value: unknown): string {
  if (value instanceof PickledTensor) return 'a tensor'
  if (value instanceof PickledDict) return 'a dict'
  if (value instanceof PickledDType) return `torch.${value.name}`
  if (value instanceof Uint8Array) return 'bytes'
  if (value instanceof PickledStorage) return 'a storage without a tensor'
  if (value instanceof PickledGlobal || value instanceof Unsupported) return unquoted(value.name)
  if (Array.isArray(value)) return 'a list'
  return value === null ? 'None' : `a ${typeof value}`
}

/** The state dicts in a file, for messages: what a caller may have meant. */
function whatIsThere(root: unknown): string {
  const found: string[] = []
  // What occurs at many places is looked at once: there may be more places than anybody can count.
  const seen = new Set<unknown>()
  const walk = (value: unknown, place: readonly string[]) => {
    if (!(value instanceof PickledDict) || place.length > 3 || found.length > 8 || seen.has(value)) return
    seen.add(value)
    const values = [...value.entries.values()]
    if (values.length > 0 && values.every((item) => item instanceof PickledTensor)) {
      const keys = place.map(quote)
      if (keys.length > 0) found.push(keys.length === 1 ? String(keys) : `[${keys.join(', ')}]`)
      return
    }
    for (const [key, item] of value.entries) if (typeof key === 'string') walk(item, [...place, key])
  }
  walk(root, [])
  return found.length === 0 ? '' : `; state dicts are at { key: ${found.join(' } or { key: ')} }`
}
