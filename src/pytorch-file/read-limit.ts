/**
 * How much memory a file may take, by its size: a small file that would fill memory is broken, or made to do so. Views with
 * strides of 0, compressed zeros and references to what was read before all give much for little.
 */
import { getHeapStatistics } from 'node:v8'
import { SpikenormError } from '../errors.js'
import { fileError } from '../file-error.js'
import { native } from '../native.js'

/** Bytes that any file may take, and that it may take for each byte of its own. */
const ALLOWANCE = 2 ** 26
const FACTOR = 64
/** The part of V8's heap that a pickle may take; V8 ends the process where the heap is full. */
const HEAP_PART = 1 / 4

export class ReadLimit {
  readonly #path: string
  readonly #fileBytes: number
  readonly #most: number
  readonly #mostObjects: number
  #bytes = 0
  #objects = 0

  constructor(path: string, fileBytes: number) {
    this.#path = path
    this.#fileBytes = fileBytes
    this.#most = ALLOWANCE + FACTOR * fileBytes
    this.#mostObjects = getHeapStatistics().heap_size_limit * HEAP_PART
  }

  /** Counts bytes outside of V8's heap, before they are allocated. Throws `ERR_FILE` or `ERR_OUT_OF_MEMORY`. */
  takeBytes(bytes: number, what: string): void {
    this.#bytes += bytes
    if (!(this.#bytes <= this.#most)) throw this.#tooMuch(what)
    native.expectRoom(this.#path, this.#bytes)
  }

  /** Counts what objects take of V8's heap, roughly. Throws `ERR_FILE` or `ERR_OUT_OF_MEMORY`. */
  takeObjects(bytes: number, what: string): void {
    this.#objects += bytes
    if (this.#objects <= this.#most && this.#objects <= this.#mostObjects) return
    if (!(this.#objects <= this.#most)) throw this.#tooMuch(what)
    throw new SpikenormError(
      'ERR_OUT_OF_MEMORY',
      `${this.#path}: ${what} would take more than a quarter of V8's heap, ${this.#mostObjects} bytes; node --max-old-space-size makes it larger`,
    )
  }

  #tooMuch(what: string): SpikenormError {
    return fileError(
      this.#path,
      `${what} would take more memory than a file of ${this.#fileBytes} bytes may: the limit is 64 MiB and ${FACTOR} times its size, ${this.#most} bytes`,
    )
  }
}
