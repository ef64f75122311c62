import { SpikenormError } from './errors.js'
import { native } from './native.js'

/** Set in the numbers of those that hold much memory (src/native/handles.rs). */
const LARGE = 1
/** How many small ones go unwatched. */
const YOUNG = 64

/**
 * The latest handles of little memory, which are kept alive here. Watching for an object's collection costs as much as a
 * small operation and most are disposed of soon, so that is left until there are {@link YOUNG} of them: it is then done
 * for those that are still in use.
 */
const young: (Handle | undefined)[] = new Array(YOUNG).fill(undefined)
let youngCount = 0
let watchYoung: () => void

/** Frees what belonged to collected owners; returns how many handles are left. */
export function sweep(): number {
  watchYoung()
  return native.sweep()
}

/**
 * Owner of something native, known by a number. It is freed at once by `dispose()` or at the end of a `using`
 * block, and otherwise after the owner has been garbage collected, in synchronous loops too.
 */
export class Handle {
  #id: number

  constructor(id: number) {
    this.#id = id
    if ((id & LARGE) !== 0) {
      native.track(this, id)
    } else {
      young[youngCount++] = this
      if (youngCount === YOUNG) watchYoung()
    }
  }

  static {
    watchYoung = () => {
      for (let i = 0; i < youngCount; i++) {
        const handle = young[i] as Handle
        if (handle.#id !== 0) native.track(handle, handle.#id)
        young[i] = undefined
      }
      youngCount = 0
    }
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

  get isDisposed(): boolean {
    return this.#id === 0
  }

  /** @internal Told that a native call has freed it. */
  forget(): void {
    this.#id = 0
  }

  /** Frees the native memory now. Using it afterwards throws `ERR_DISPOSED`; disposing twice does nothing. */
  dispose(): void {
    if (this.#id === 0) return
    native.free(this.#id)
    this.#id = 0
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}
