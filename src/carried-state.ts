import type { Checkpoint } from './checkpoint.js'
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
  /** State after the last step, or `null` before the first. */
  value: Tensor | null = null
  /** The forward that `value` came from, if a gradient may flow back to it. */
  #source: Entry | null = null
  /** What later calls have handed back, by pending forward: several may wait where backwards and forwards alternate. */
  readonly #gradients = new Map<Entry, Tensor>()

  /** The forward a new one links to. */
  get source(): Entry | null {
    return this.#source
  }

  /** Goes on from the state after a forward; `entry` is `null` where it was not recorded. */
  advance(value: Tensor, entry: Entry | null): void {
    if (value !== this.value) this.value?.dispose()
    this.value = value
    this.#source = entry
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
    if (this.#source === entry) this.#source = null
    const { previous } = entry
    // Pending still, on the tape or in the hands of a vjp: its saved values have not been freed.
    if (previous?.saved && !previous.saved.isDisposed) this.#setGradient(previous, gradient)
    else gradient.dispose()
  }

  #setGradient(entry: Entry, gradient: Tensor | null): void {
    this.#gradients.get(entry)?.dispose()
    if (gradient) this.#gradients.set(entry, gradient)
    else this.#gradients.delete(entry)
  }

  /** Keeps the value and lets no gradient flow back through it. */
  detach(): void {
    this.#source = null
  }

  /** Undone by going back to the present value, which is shared, not copied: no forward writes to a state. */
  checkpoint(): Checkpoint {
    const source = this.#source
    const value = this.value?.reshape(this.value.shape) ?? null
    return {
      undo: () => {
        this.value?.dispose()
        this.value = value
        this.#source = source
      },
      release: () => value?.dispose(),
    }
  }

  reset(): void {
    this.value?.dispose()
    this.value = null
    this.#source = null
    for (const gradient of this.#gradients.values()) gradient.dispose()
    this.#gradients.clear()
  }
}
