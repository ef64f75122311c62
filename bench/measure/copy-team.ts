// What memory can do: a copy of the same bytes by the same number of threads. `copy_` runs on one thread, so a team of
// worker threads copies a share each.

import { Worker } from 'node:worker_threads'
import { type Tensor, zeros } from 'spikenorm'
import { COPY_WORKER } from '../paths.js'
import { timed } from './native.js'
import type { Contestant, Round } from './rounds.js'

export const COPY = 'copy'

/** Places in the memory shared with the workers, and what COMMAND can be. copy-worker.mjs reads the same. */
export const SLOT = {
  generation: 0,
  command: 1,
  sets: 2,
  bytes: 3,
  set: 4,
  armed: 5,
  go: 6,
  done: 7,
} as const
export const COMMAND = { allocate: 1, copy: 2, release: 3, exit: 4 } as const

export class CopyTeam implements Contestant {
  readonly name = COPY
  readonly #control = new Int32Array(new SharedArrayBuffer(4 * Object.keys(SLOT).length))
  readonly #workers: Worker[]
  #own: { from: Tensor; to: Tensor }[] = []

  /** @param threads those of the measured passes, this one included */
  constructor(threads: number) {
    this.#workers = Array.from({ length: threads - 1 }, () => {
      const workerData = { control: this.#control, SLOT, COMMAND }
      return new Worker(COPY_WORKER, { workerData, execArgv: [] })
    })
  }

  /** Sets of a source and a target of `bytes` in all, a share for each thread. */
  allocate(bytes: number, sets: number): void {
    const share = Math.ceil(bytes / (this.#workers.length + 1))
    this.#control[SLOT.sets] = sets
    this.#control[SLOT.bytes] = share
    this.#command(COMMAND.allocate)
    this.#own = Array.from({ length: sets }, () => ({
      from: zeros([share], { dtype: 'uint8' }),
      to: zeros([share], { dtype: 'uint8' }),
    }))
    this.#finish()
  }

  release(): void {
    this.#command(COMMAND.release)
    for (const { from, to } of this.#own) {
      from.dispose()
      to.dispose()
    }
    this.#own = []
    this.#finish()
  }

  /** The time of a copy, µs, in `forward`. */
  round(): Round {
    const forward = this.#own.map(({ from, to }, set) => {
      this.#control[SLOT.set] = set
      this.#command(COMMAND.copy)
      return timed(() => {
        Atomics.store(this.#control, SLOT.go, 1)
        to.copy_(from)
        this.#finish()
      })
    })
    return { forward, backward: [] }
  }

  async dispose(): Promise<void> {
    this.#command(COMMAND.exit)
    await Promise.all(this.#workers.map((worker) => worker.terminate()))
  }

  /** Wakes the team and waits until all stand ready, so that waking up is not timed. */
  #command(command: number): void {
    const control = this.#control
    for (const slot of [SLOT.armed, SLOT.go, SLOT.done]) Atomics.store(control, slot, 0)
    Atomics.store(control, SLOT.command, command)
    Atomics.add(control, SLOT.generation, 1)
    Atomics.notify(control, SLOT.generation)
    this.#await(SLOT.armed)
  }

  #finish(): void {
    Atomics.store(this.#control, SLOT.go, 1)
    this.#await(SLOT.done)
  }

  #await(slot: number): void {
    while (Atomics.load(this.#control, slot) < this.#workers.length);
  }
}
