// Loops of 10,000 steps that never call dispose() end with the memory they began with, also when they never yield to
// the event loop. Each runs in a process of its own (support/memory-loop.ts), so that nothing else is measured.

import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, it, vi } from 'vitest'
import { emptyCache, full, memoryStats } from '../src/index.js'
import type { Reading, Report } from './support/memory-loop.js'
import { MEMORY } from './support/tolerances.js'

// A loop takes one to three seconds alone, many times that on a busy machine.
vi.setConfig({ testTimeout: 120_000 })

const script = fileURLToPath(new URL('./support/memory-loop.ts', import.meta.url))
const root = fileURLToPath(new URL('..', import.meta.url))

async function run(kind: string, style: string): Promise<Report> {
  // V8's young generation grows in leaps of megabytes at moments of its own, so it starts full-grown.
  const args = ['--expose-gc', '--min-semi-space-size=16', '--import', 'tsx', script, kind, style]
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: root })
  const report = JSON.parse(stdout) as Report
  const megabytes = (reading: Reading) =>
    Object.entries(reading).map(([what, bytes]) => `${what} ${(bytes / 2 ** 20).toFixed(2)}`)
  const { before, after, most } = report
  console.log(
    `${kind}, ${style}: ${report.milliseconds.toFixed(0)} ms; MB before: ${megabytes(before)}; ` +
      `after: ${megabytes(after)}; most: ${megabytes(most)}`,
  )
  return report
}

/** What grew past its bound. */
function grown({ before, after }: Report): string[] {
  const bounds: [keyof Reading, number][] = [
    ['resident', MEMORY.residentBytes],
    ['heap', MEMORY.heapBytes],
    ['external', MEMORY.externalBytes],
    ['tensors', MEMORY.tensorBytes],
  ]
  return bounds.filter(([what, bound]) => after[what] - before[what] > bound).map(([what]) => what)
}

describe('10,000 steps end with the memory they began with', () => {
  for (const kind of ['inference', 'training', 'abandoned']) {
    for (const style of ['sync', 'async']) {
      it(`in ${style === 'sync' ? 'a synchronous' : 'an asynchronous'} loop: ${kind}`, async () => {
        const report = await run(kind, style)
        expect(grown(report)).toEqual([])
        expect(report.most.tensors).toBeLessThan(MEMORY.peakBytes)
      })
    }
  }

  it('and a loop that records and never goes backward is seen to grow: the measure works', async () => {
    const report = await run('forgotten', 'sync')
    expect(grown(report)).toContain('tensors')
    // One input of 1,024 float32 numbers is kept per pending forward, and hardly more.
    const kept = (report.after.tensors - report.before.tensors) / 10_000
    expect(kept).toBeGreaterThanOrEqual(4096)
    expect(kept).toBeLessThan(2 * 4096)
  })
})

describe('memoryStats', () => {
  it('counts what is held, keeps what is freed for reuse, and emptyCache() gives that back', () => {
    emptyCache()
    const start = memoryStats()
    const tensors = [1, 2, 3].map((value) => full([1 << 18], value))
    const held = memoryStats()
    expect(held.allocated - start.allocated).toBe(3 << 20)
    expect(held.peak).toBeGreaterThanOrEqual(held.allocated)
    for (const value of tensors) value.dispose()
    const freed = memoryStats()
    expect(freed.allocated).toBe(start.allocated)
    expect(freed.cached).toBeGreaterThanOrEqual(3 << 20)
    // The next one of that size comes from the cache.
    using again = full([1 << 18], 4)
    expect(memoryStats().cached).toBe(freed.cached - (1 << 20))
    expect(again.toFloat64Array()[1]).toBe(4)
    emptyCache()
    expect(memoryStats().cached).toBe(0)
  })
})
