// What a row says about its copy, and when it says nothing: on busy cores a copy by several threads can take a hundred
// times as long as it should, since each share waits for a thread that something else has stopped.

import type { LayerRow } from './results.js'

/** GB/s that no memory or cache reaches: for each CPU thread, and for a GPU. */
const BEYOND_MEMORY = { cpu: 250, cuda: 20_000 } as const

/** Why the copy beside this row was not measured at the speed of memory, or `null`. */
export function copyDoubt({ device, threads, copy, percentOfCopy }: LayerRow): string | null {
  const limit = device === 'cpu' ? threads * BEYOND_MEMORY.cpu : BEYOND_MEMORY.cuda
  if (!Number.isFinite(percentOfCopy) || copy.gigabytesPerSecond > limit) {
    return 'the copy was faster than memory can be: too short to be timed'
  }
  return percentOfCopy > 100 ? 'the copy was slower than the layer: something else used the cores' : null
}

/** The percentage as tables show it: `?` where the copy is in doubt. */
export function percentText(row: LayerRow): string {
  return copyDoubt(row) === null ? row.percentOfCopy.toFixed(0) : '?'
}

/** GB/s of the fastest copy that is in no doubt, or `null`. */
export function copySpeed(rows: readonly LayerRow[]): number | null {
  const speeds = rows.filter((row) => copyDoubt(row) === null).map(({ copy }) => copy.gigabytesPerSecond)
  return speeds.length === 0 ? null : Math.max(...speeds)
}

/** A line for each doubt that `?` stands for in a table of these rows. */
export function doubts(rows: readonly LayerRow[]): string[] {
  return [...new Set(rows.map(copyDoubt))].filter((doubt) => doubt !== null).map((doubt) => `  ? ${doubt}`)
}
