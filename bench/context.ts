// What the suites share: the options, the Python process, the clock that says when to stop, what was skipped.

import type { Device } from 'spikenorm'
import { cuda } from 'spikenorm'
import type { Options } from './options.js'
import { type PeerName, type PeerProcess, usualPeers } from './peers/peer.js'

export class Context {
  /** What was not measured, and why. */
  readonly skipped: string[] = []
  readonly #started = performance.now()

  constructor(
    readonly options: Options,
    readonly peer: PeerProcess | undefined,
    readonly interruption: AbortSignal,
  ) {}

  get devices(): Device[] {
    return this.options.devices ?? ['cpu', ...(cuda.isAvailable() ? (['cuda'] as const) : [])]
  }

  peersOn(device: Device): PeerName[] {
    const { peers } = this.options
    if (peers === 'none') return []
    return peers === 'usual' ? usualPeers(device) : peers
  }

  /** Whether the time is up or the user has had enough; notes what is then left out. */
  isOver(what: string): boolean {
    const isLate = performance.now() - this.#started > this.options.minutes * 60_000
    if (this.interruption.aborted) this.skipped.push(`${what}: interrupted`)
    else if (isLate) this.skipped.push(`${what}: the time given by --minutes was over`)
    return this.interruption.aborted || isLate
  }
}
