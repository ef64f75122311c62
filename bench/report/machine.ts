// On what a result was measured, and with which versions.

import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { availableParallelism, cpus, release, totalmem } from 'node:os'
import { fileURLToPath } from 'node:url'
import { cuda } from 'spikenorm'
import { cpuCacheBytes } from '../measure/sets.js'
import { IS_PACKAGED, ROOT } from '../paths.js'
import type { PeerVersions } from '../peers/peer.js'

export interface Machine {
  system: string
  cpu: string
  cores: number
  /** bytes of the last-level cache; null where it cannot be told */
  cache: number | null
  memory: number
  gpus: string[]
}

export interface Versions {
  spikenorm: string
  node: string
  python: string | null
  torch: string | null
  spikingjelly: string | null
}

export function describeMachine(): Machine {
  return {
    system: `${process.platform} ${process.arch} ${release()}`,
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    cache: cpuCacheBytes(),
    memory: totalmem(),
    gpus: cuda.devices().map(({ name }) => name),
  }
}

export function describeVersions(peer: PeerVersions | undefined): Versions {
  return {
    spikenorm: packageVersion(),
    node: process.version,
    python: peer?.python ?? null,
    torch: peer?.torch ?? null,
    spikingjelly: peer?.spikingjelly ?? null,
  }
}

function packageVersion(): string {
  return (JSON.parse(readFileSync(new URL('package.json', ROOT), 'utf8')) as { version: string }).version
}

/**
 * The commit measured, with `+` where files differ from it; SPIKENORM_COMMIT where there is no repository, and for an
 * installed package its version: a repository around it is somebody else's.
 */
export function describeCommit(): string {
  if (IS_PACKAGED) return process.env.SPIKENORM_COMMIT ?? `v${packageVersion()}`
  const git = (...args: string[]) =>
    execFileSync('git', args, {
      cwd: fileURLToPath(ROOT),
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim()
  try {
    return git('rev-parse', '--short=12', 'HEAD') + (git('status', '--porcelain') === '' ? '' : '+')
  } catch {
    return process.env.SPIKENORM_COMMIT ?? 'unknown'
  }
}
