/** Checkpoints of torch.save (`.pt`, `.pth`): a state dict out of one, or all there is. */
import { SpikenormError } from '../errors.js'
import type { Tensor } from '../tensor.js'
import { Archive } from './archive.js'
import { fileError } from './file-error.js'
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

/** Nesting that no checkpoint has. */
const DEEPEST = 200

/**
 * The state dict in a file of `torch.save` (PyTorch 1.6 or later), in the order it was saved; only its tensors are read.
 * Where the file holds more than that (`{ net: …, optimizer: …, epoch: 3 }`) `key` says what to take.
 *
 * No code in the file is run: what is not a tensor, number, text, or a dict or list of them throws `ERR_FILE` with its name,
 * as do broken files, files without a state dict there, and whole pickled nets. `ERR_DTYPE` for a dtype unknown here.
 */
export function loadPyTorch(path: string, options: LoadPyTorchOptions = {}): Record<string, Tensor> {
  return reading(path, options, (archive, root) => {
    const keys = keysOf(options.key)
    const chosen = keys.reduce<unknown>((value, key, depth) => {
      if (value instanceof PickledDict && value.entries.has(key)) return value.entries.get(key)
      const here = keys.slice(0, depth)
      throw fileError(path, `there is no ${show([...here, key])}${whatIsThere(root)}`)
    }, root)
    if (!(chosen instanceof PickledDict)) {
      throw fileError(path, `${show(keys)} is no dict of tensors, but ${kindOf(chosen)}${whatIsThere(root)}`)
    }
    for (const [key, value] of chosen.entries) {
      if (value instanceof PickledTensor || value instanceof Unsupported) continue
      throw fileError(
        path,
        `${show(keys)} is no state dict: '${String(key)}' in it is ${kindOf(value)}${whatIsThere(root)}`,
      )
    }
    return new Conversion(archive, options).of(chosen, keys) as Record<string, Tensor>
  })
}

/** Everything in a file of `torch.save`, as `torch.load` gives it; see {@link loadPyTorch} for errors and safety. */
export function loadPyTorchCheckpoint(
  path: string,
  options: Pick<LoadPyTorchOptions, 'skipUnsupported'> = {},
): PyTorchValue {
  return reading(path, options, (archive, root) => {
    const value = new Conversion(archive, options).of(root, [])
    return value === LEFT_OUT ? null : value
  })
}

function reading<R>(
  path: string,
  options: LoadPyTorchOptions,
  body: (archive: Archive, root: unknown) => R,
): R {
  if (typeof path !== 'string') {
    throw new SpikenormError('ERR_ARGUMENT', `path: expected a string, got ${typeof path}`)
  }
  const skipUnsupported = options.skipUnsupported ?? false
  return Archive.reading(path, (archive) => body(archive, archive.unpickle({ skipUnsupported })))
}

function keysOf(key: LoadPyTorchOptions['key']): readonly string[] {
  if (key === undefined) return []
  const keys = typeof key === 'string' ? [key] : key
  if (!Array.isArray(keys) || !keys.every((one) => typeof one === 'string')) {
    throw new SpikenormError('ERR_ARGUMENT', 'key: expected a string or an array of strings')
  }
  return keys
}

const LEFT_OUT = Symbol('left out')

/** Makes plain values and tensors of what was unpickled. What occurs twice is made once. */
class Conversion {
  readonly #archive: Archive
  readonly #skipUnsupported: boolean
  readonly #made = new Map<unknown, PyTorchValue | typeof LEFT_OUT>()
  /** What is being made: meeting it again is a cycle. */
  readonly #open = new Set<unknown>()

  constructor(archive: Archive, { skipUnsupported }: LoadPyTorchOptions) {
    this.#archive = archive
    this.#skipUnsupported = skipUnsupported ?? false
  }

  of(value: unknown, place: readonly string[]): PyTorchValue | typeof LEFT_OUT {
    if (value === null || typeof value !== 'object') return value as PyTorchValue
    const known = this.#made.get(value)
    if (known !== undefined) return known
    if (this.#open.has(value) || place.length > DEEPEST) {
      throw fileError(this.#archive.path, `what is under ${show(place.slice(0, 3))} is nested without end`)
    }
    this.#open.add(value)
    const made = this.#make(value, place)
    this.#open.delete(value)
    this.#made.set(value, made)
    return made
  }

  #make(value: object, place: readonly string[]): PyTorchValue | typeof LEFT_OUT {
    if (value instanceof PickledTensor) return this.#tensor(value, place)
    if (value instanceof PickledDict) return this.#dict(value, place)
    if (value instanceof Unsupported) return LEFT_OUT
    if (value instanceof Uint8Array) return value
    if (value instanceof PickledDType) return `torch.${value.name}`
    if (Array.isArray(value)) {
      // Positions count in a list: what is left out leaves a null.
      return value.map((item, i) => {
        const made = this.of(item, [...place, String(i)])
        return made === LEFT_OUT ? null : made
      })
    }
    if (this.#skipUnsupported) return LEFT_OUT
    throw fileError(this.#archive.path, `${show(place)} is ${kindOf(value)}, which is not loaded`)
  }

  #tensor(value: PickledTensor, place: readonly string[]): Tensor | typeof LEFT_OUT {
    try {
      return this.#archive.read(value, place.join('.'))
    } catch (thrown) {
      const isSkipped =
        this.#skipUnsupported && thrown instanceof SpikenormError && thrown.code === 'ERR_DTYPE'
      if (isSkipped) return LEFT_OUT
      throw thrown
    }
  }

  #dict({ entries }: PickledDict, place: readonly string[]): { [key: string]: PyTorchValue } {
    const made: [string, PyTorchValue][] = []
    for (const [key, value] of entries) {
      if (typeof key === 'object' && key !== null) {
        if (this.#skipUnsupported) continue
        throw fileError(this.#archive.path, `${show(place)} has a key that is ${kindOf(key)}`)
      }
      const converted = this.of(value, [...place, String(key)])
      if (converted !== LEFT_OUT) made.push([String(key), converted])
    }
    // fromEntries defines keys: one called __proto__ is a key like any other.
    return Object.fromEntries(made)
  }
}

/** A place in the file, for messages. */
function show(place: readonly string[]): string {
  return place.length === 0
    ? 'the file'
    : place
        .map((key) => `'${key}'`)
        .reverse()
        .join(' in ')
}

function kindOf(value: unknown): string {
  if (value instanceof PickledTensor) return 'a tensor'
  if (value instanceof PickledDict) return 'a dict'
  if (value instanceof PickledDType) return `torch.${value.name}`
  if (value instanceof Uint8Array) return 'bytes'
  if (value instanceof PickledStorage) return 'a storage without a tensor'
  if (value instanceof PickledGlobal || value instanceof Unsupported) return value.name
  if (Array.isArray(value)) return 'a list'
  return value === null ? 'None' : `a ${typeof value}`
}

/** The state dicts in a file, for messages: what a caller may have meant. */
function whatIsThere(root: unknown): string {
  const found: string[] = []
  const walk = (value: unknown, place: readonly string[]) => {
    if (!(value instanceof PickledDict) || place.length > 3 || found.length > 8) return
    const values = [...value.entries.values()]
    if (values.length > 0 && values.every((item) => item instanceof PickledTensor)) {
      const keys = place.map((key) => `'${key}'`)
      if (keys.length > 0) found.push(keys.length === 1 ? String(keys) : `[${keys.join(', ')}]`)
      return
    }
    for (const [key, item] of value.entries) if (typeof key === 'string') walk(item, [...place, key])
  }
  walk(root, [])
  return found.length === 0 ? '' : `; state dicts are at { key: ${found.join(' } or { key: ')} }`
}
