// The other side of server.py: a Python with PyTorch, asked over its standard input, answering over its output.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { createInterface, type Interface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { BENCH, MANUAL } from '../paths.js'

export interface PeerVersions {
  python: string
  torch: string
  spikingjelly: string | null
  spikingjellyAbsent: string | null
  cuda: string | null
}

export type Reply = Record<string, unknown> & { absent?: string }

/** What can be asked of a peer process for each device, and what `--peers torch` asks. */
export const PEERS = ['pytorch', 'cudnn', 'channels-last', 'compile', 'spikingjelly'] as const
export type PeerName = (typeof PEERS)[number]

export function usualPeers(device: string): PeerName[] {
  return device === 'cpu' ? ['pytorch', 'spikingjelly'] : [...PEERS]
}

/** Why a peer is no other contestant on a device, or null. */
export function pointless(peer: PeerName, device: string): string | null {
  const needsGpu = peer === 'cudnn' || peer === 'channels-last'
  return needsGpu && device === 'cpu' ? 'needs a GPU' : null
}

export class PeerError extends Error {}

export class PeerProcess {
  readonly versions: PeerVersions
  readonly #process: ChildProcess
  readonly #lines: AsyncIterator<string>
  readonly #ended: () => string | null

  private constructor(
    versions: PeerVersions,
    process: ChildProcess,
    lines: AsyncIterator<string>,
    ended: () => string | null,
  ) {
    this.versions = versions
    this.#process = process
    this.#lines = lines
    this.#ended = ended
  }

  static async start(python: string): Promise<PeerProcess> {
    const script = fileURLToPath(new URL('peers/server.py', BENCH))
    // PyTorch's profiler reports every start and stop on standard error.
    const env = { KINETO_LOG_LEVEL: '99', ...process.env }
    const child = spawn(python, ['-B', script], { stdio: ['pipe', 'pipe', 'inherit'], env })
    let end: string | null = null
    child.on('error', (error) => {
      end = error.message
    })
    child.on('exit', (code, signal) => {
      end ??= `it ended (${signal ?? `exit ${code}`})`
    })
    // A pipe that breaks is reported by the request that waits for an answer.
    child.stdin?.on('error', () => {})
    const reader: Interface = createInterface({ input: child.stdout! })
    const lines = reader[Symbol.asyncIterator]()
    const peer = new PeerProcess({} as PeerVersions, child, lines, () => end)
    const versions = (await peer.ask({ do: 'hello' })) as unknown as PeerVersions
    return new PeerProcess(versions, child, lines, () => end)
  }

  async ask(request: Record<string, unknown>): Promise<Reply> {
    this.#process.stdin?.write(`${JSON.stringify(request)}\n`)
    const line = await this.#lines.next()
    if (line.done)
      throw new PeerError(`the Python process gave no answer: ${this.#ended() ?? 'its output ended'}`)
    return JSON.parse(line.value) as Reply
  }

  async close(): Promise<void> {
    if (this.#process.exitCode !== null) return
    const gone = new Promise((resolve) => this.#process.once('exit', resolve))
    this.#process.stdin?.end()
    await gone
  }
}

/** A Python that has PyTorch: the one named, or the first of the usual names. Null with the reason otherwise. */
export function findPython(named: string | undefined): { python: string } | { reason: string } {
  const candidates = named ? [named] : ['python3', 'python']
  for (const python of candidates) {
    const probe = spawnSync(python, ['-c', 'import torch'], { encoding: 'utf8' })
    if (probe.status === 0) return { python }
  }
  return {
    reason: `${candidates.join(' and ')} cannot import torch (${MANUAL} says how to get a Python that can)`,
  }
}
