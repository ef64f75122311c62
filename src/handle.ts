import { SpikenormError } from './errors.js'
import { native } from './native.js'

/**
 * Owner of something native, known by a number. It is freed at once by `dispose()` or at the end of a `using`
 * block, and otherwise after the owner has been garbage collected, in synchronous loops too.
 */
export class Handle {
  #id: number

  /** @internal Of 0: nothing yet, for a call that makes it and is told whose it will be; {@link become} follows. */
  constructor(id: number) {
    this.#id = id
    if (id !== 0) native.track(this, id)
  }

  /** @internal Takes over what a native call has made for this object, which it watches already. */
  become(id: number): this {
    this.#id = id
    return this
  }

  /** @internal The native number; throws `ERR_DISPOSED` once freed. */
  get id(): number {
    if (this.#id === 0) {
      throw new SpikenormError(
        'ERR_DISPOSED',
        `the ${this.constructor.name.toLowerCase()} has been disposed of`,
      )
    }
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
    if (this.#id !== 0) native.track(this, this.#id)
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
