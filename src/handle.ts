import { SpikenormError } from './errors.js'
import { nameOfClass } from './format-value.js'
import { native } from './native.js'

/** Given to a {@link Handle} whose value a native call is about to make, for the owner it is told of. */
export const PENDING = Symbol('pending')

/** Gives an owner made of {@link PENDING} what a native call has made for it, which watches the owner already. */
export let become: <H extends Handle>(owner: H, id: number) => H

/** Whether a value is a handle, and no proxy of one or object with its prototype. */
export let isHandle: (value: object) => boolean

/**
 * Owner of something native, known by a number that is never used again. It is freed at once by `dispose()` or at the
 * end of a `using` block, and otherwise after the owner has been garbage collected, in synchronous loops too.
 */
export class Handle {
  #id: number

  static {
    become = (owner, id) => {
      owner.#id = id
      return owner
    }
    isHandle = (value) => #id in value
  }

  /** @internal Takes over what a native call has just made; throws `ERR_ARGUMENT` for any other number. */
  constructor(id: number | typeof PENDING) {
    if (id === PENDING) {
      this.#id = 0
      return
    }
    this.#id = id
    try {
      native.track(this, id)
    } catch (thrown) {
      const isNumberOfUser = thrown instanceof SpikenormError && thrown.code === 'ERR_ARGUMENT'
      throw isNumberOfUser ? new SpikenormError('ERR_ARGUMENT', this.howToMakeOne) : thrown
    }
  }

  /** @internal What to write instead of `new` for a class that is not constructed by its user. */
  protected get howToMakeOne(): string {
    return `${this.constructor.name}: it is made by the library, not with new`
  }

  /** @internal The native number; throws `ERR_DISPOSED` once freed. */
  get id(): number {
    if (this.#id === 0) throw isGone(this)
    return this.#id
  }

  /** @internal The same for what is attempted, which the error names. */
  idFor(attempt: string): number {
    if (this.#id === 0) throw isGone(this).within(attempt)
    return this.#id
  }

  /** Whether the native memory has been freed. */
  get isDisposed(): boolean {
    return this.#id === 0
  }

  /** Frees the native memory now. Using it afterwards throws `ERR_DISPOSED`; disposing twice does nothing. */
  dispose(): void {
    if (this.#id === 0) return
    native.free(this.#id)
    this.#id = 0
  }

  /** `dispose()` at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** A module's own handles are of no class that users know. */
function isGone(handle: Handle): SpikenormError {
  const what = handle.constructor === Handle ? 'module' : nameOfClass(handle)
  return new SpikenormError('ERR_DISPOSED', `the ${what} has been disposed of`)
}

/**
 * What a forward has saved for its backward. It belongs to its layer on the native side, which frees it with the layer at
 * the latest: this object need not be watched.
 */
export class Saved {
  #id: number

  constructor(id: number) {
    this.#id = id
  }

  get id(): number {
    return this.#id
  }

  get isDisposed(): boolean {
    return this.#id === 0
  }

  /** Frees it once this object has been collected: for one that is in nobody's tape. */
  watch(): void {
    if (this.#id !== 0) native.trackSaved(this, this.#id)
  }

  /** Told that a backward has used it up. */
  forget(): void {
    this.#id = 0
  }

  dispose(): void {
    if (this.#id !== 0) native.free(this.#id)
    this.#id = 0
  }
}
