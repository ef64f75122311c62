import { changed, isAtomic, made } from './rollback.js'
import type { Tape, TapeEntry } from './tape.js'
import type { Tensor } from './tensor.js'

/** A recorded forward of a module whose state goes on from call to call. */
export interface StatefulEntry<Entry> extends TapeEntry {
  /** The recorded forward whose state this one started from, unless cut by `detach()`. */
  readonly previous: Entry | null
}

/**
 * The state a module carries between calls and the gradient that flows back through it: a forward links to the recorded
 * one before it, and backward hands the state's gradient over to that one. Used by NeuNorm and the neurons.
 */
export class CarriedState<Entry extends StatefulEntry<Entry>> {
  #value: Tensor | null = null
  /** The forward that `value` came from, if a gradient may flow back to it. */
  #source: Entry | null = null
  /** What later calls have handed back, by pending forward: several may wait where backwards and forwards alternate. */
  readonly #gradients = new Map<Entry, Tensor>()

  /** State after the last step, or `null` before the first. */
  get value(): Tensor | null {
    return this.#value
  }

  /** The forward a new one links to. */
  get source(): Entry | null {
    return this.#source
  }

  /** Goes on from the state after a forward; `entry` is `null` where it was not recorded. */
  advance(value: Tensor | null, entry: Entry | null): void {
    const oldValue = this.#value
    const oldSource = this.#source
    this.#value = value
    this.#source = entry
    const isReplaced = value !== oldValue
    if (!isAtomic()) {
      if (isReplaced) oldValue?.dispose()
      return
    }
    if (isReplaced && value) made(value)
    changed({
      undo: () => {
        if (isReplaced) value?.dispose()
        this.#value = oldValue
        this.#source = oldSource
      },
      release: () => {
        if (isReplaced) oldValue?.dispose()
      },
      releases: oldValue,
    })
  }

  /** Gradient that later calls have handed to `entry`, or `null`. */
  gradientOf(entry: Entry): Tensor | null {
    return this.#gradients.get(entry) ?? null
  }

  /**
   * Ends the backward of `entry`, which is still the latest of `tape`: `gradient`, that of its first state, goes to the
   * forward it started from if that one is still pending.
   */
  handBack(entry: Entry, gradient: Tensor, tape: Tape<Entry>): void {
    // The native side may have made the one it was given the other.
    if (this.#gradients.get(entry) === gradient) this.#gradients.delete(entry)
    else this.#setGradient(entry, null)
    tape.pop()
    if (this.#source === entry) this.detach()
    const { previous } = entry
    // Pending on the tape, or in the hands of a vjp.
    if (previous && !previous.isGone) this.#setGradient(previous, gradient)
    else gradient.dispose()
  }

  #setGradient(entry: Entry, gradient: Tensor | null): void {
    const before = this.gradientOf(entry)
    if (before === gradient) return
    if (!isAtomic() && gradient === null) {
      this.#gradients.delete(entry)
      before?.dispose()
      return
    }
    const set = (value: Tensor | null) => {
      if (value) this.#gradients.set(entry, value)
      else this.#gradients.delete(entry)
    }
    set(gradient)
    if (gradient) made(gradient)
    changed({
      undo: () => {
        set(before)
        gradient?.dispose()
      },
      release: () => before?.dispose(),
      releases: before,
    })
  }

  /** Keeps the value and lets no gradient flow back through it. */
  detach(): void {
    this.advance(this.#value, null)
  }

  reset(): void {
    this.advance(null, null)
    for (const entry of [...this.#gradients.keys()]) this.#setGradient(entry, null)
  }
}
