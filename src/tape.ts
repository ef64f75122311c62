import type { Checkpoint } from './checkpoint.js'
import { SpikenormError } from './errors.js'
import type { Handle, Saved } from './handle.js'

/** What a module keeps of one recorded forward. */
export interface TapeEntry {
  /** Freed when the entry leaves the tape. */
  readonly saved?: Handle | Saved
}

/** The recorded forwards of a module that have had no backward yet; backward takes the latest first. */
export class Tape<Entry extends TapeEntry> {
  readonly #entries: Entry[] = []

  get length(): number {
    return this.#entries.length
  }

  push(entry: Entry): void {
    this.#entries.push(entry)
  }

  /** The latest entry, which stays until `pop`: a backward that throws has taken nothing. */
  latest(): Entry {
    const entry = this.#entries.at(-1)
    if (!entry) {
      throw new SpikenormError(
        'ERR_NO_FORWARD',
        'backward: no recorded forward is pending; forwards are recorded in training mode or within enableGrad()',
      )
    }
    return entry
  }

  pop(): void {
    this.#entries.pop()?.saved?.dispose()
  }

  /** Puts other entries in the place of all there are, which are handed over; none is freed. */
  exchange(entries: readonly Entry[]): Entry[] {
    return this.#entries.splice(0, this.#entries.length, ...entries)
  }

  /** Undone by dropping what has been pushed since. */
  checkpoint(): Checkpoint {
    const { length } = this.#entries
    return {
      undo: () => {
        while (this.#entries.length > length) this.pop()
      },
      release() {},
    }
  }

  clear(): void {
    while (this.#entries.length > 0) this.pop()
  }
}
