// How many sets of buffers a measurement walks through.
//
// Cold: so many that whatever the last pass over a set left in the cache is gone when its turn comes again. Hot: one set,
// which stays in the cache where it fits.

import { readFileSync } from 'node:fs'
import type { Device } from 'spikenorm'

export const CACHES = ['cold', 'hot'] as const
export type Cache = (typeof CACHES)[number]

/** Above the L2 of any GPU so far (126 MB). */
const GPU_CACHE_BYTES = 128 * 2 ** 20
const ASSUMED_CPU_CACHE_BYTES = 32 * 2 ** 20
const MOST_SETS = 64

/** The last-level cache of a device. */
export function cacheBytes(device: Device): number {
  return device === 'cpu' ? (cpuCacheBytes() ?? ASSUMED_CPU_CACHE_BYTES) : GPU_CACHE_BYTES
}

/** From Linux; null elsewhere. */
export function cpuCacheBytes(): number | null {
  for (const level of [3, 2]) {
    try {
      const text = readFileSync(`/sys/devices/system/cpu/cpu0/cache/index${level}/size`, 'utf8')
      const match = /^(\d+)([KMG])$/.exec(text.trim())
      if (match) return Number(match[1]) * 2 ** ({ K: 10, M: 20, G: 30 }[match[2] as 'K' | 'M' | 'G'] ?? 0)
    } catch {
      // Not Linux, or a processor without this level.
    }
  }
  return null
}

/** Sets so that between two uses of one, twice the cache goes by: each step over a set moves at least 2 U. */
export function setCount(cache: Cache, device: Device, U: number): number {
  if (cache === 'hot') return 1
  return Math.min(MOST_SETS, Math.max(2, Math.ceil(cacheBytes(device) / U) + 1))
}
