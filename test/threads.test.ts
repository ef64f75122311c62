// The same bits whatever the number of threads, in every run, and in worker threads side by side.

import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { afterEach, describe, expect, it } from 'vitest'
import { getNumThreads, setNumThreads } from '../src/index.js'
import { run } from './support/layer-run.js'

type Results = Record<string, Uint8Array>

const SEED = 5
const initial = getNumThreads()
afterEach(() => setNumThreads(initial))

/** Names of what differs. */
function differing(got: Results, expected: Results): string[] {
  expect(Object.keys(got)).toEqual(Object.keys(expected))
  return Object.keys(expected).filter((name) => Buffer.compare(got[name]!, expected[name]!) !== 0)
}

describe('results have the same bits', () => {
  it('for 1, 2, 3 and 8 threads', () => {
    setNumThreads(1)
    const alone = run(SEED)
    expect(Object.keys(alone).length).toBeGreaterThan(60)
    for (const threads of [2, 3, 8]) {
      setNumThreads(threads)
      expect(getNumThreads()).toBe(threads)
      expect(differing(run(SEED), alone), `${threads} threads`).toEqual([])
    }
  })

  it('in every run', () => {
    const first = run(SEED)
    for (let i = 0; i < 4; i++) expect(differing(run(SEED), first)).toEqual([])
  })

  it('but not for other numbers: the comparison can tell', () => {
    expect(differing(run(SEED + 10), run(SEED)).length).toBeGreaterThan(60)
  })
})

const script = fileURLToPath(new URL('./support/worker-layer.mjs', import.meta.url))

interface WorkerEnd {
  results: Results[] | null
  code: number
  error: Error | null
}

function work(data: { seed: number; repeats: number; throwAtEnd?: boolean; exitAtEnd?: boolean }): {
  worker: Worker
  end: Promise<WorkerEnd>
} {
  const worker = new Worker(script, { workerData: data })
  const end = new Promise<WorkerEnd>((resolve) => {
    let results: Results[] | null = null
    let error: Error | null = null
    worker.on('message', (message: Results[]) => {
      results = message
    })
    worker.on('error', (thrown) => {
      error = thrown as Error
    })
    worker.on('exit', (code) => resolve({ results, code, error }))
  })
  return { worker, end }
}

describe('worker threads', () => {
  it('side by side, and beside the main thread, compute the bits they would compute alone', async () => {
    const seeds = [SEED, SEED + 100, SEED + 200]
    const alone = seeds.map((seed) => run(seed))
    const workers = seeds.map((seed) => work({ seed, repeats: 3 }).end)
    // The main thread computes too while they do.
    for (let i = 0; i < 5; i++) {
      expect(differing(run(SEED), alone[0]!)).toEqual([])
      await new Promise(setImmediate)
    }
    for (const [i, end] of (await Promise.all(workers)).entries()) {
      expect(end.error).toBeNull()
      expect(end.code).toBe(0)
      expect(end.results).toHaveLength(3)
      for (const results of end.results!) expect(differing(results, alone[i]!)).toEqual([])
    }
  })

  it('may end by an exception, by process.exit and by terminate() without harm to the others', async () => {
    const alone = run(SEED)
    const thrown = work({ seed: SEED, repeats: 1, throwAtEnd: true })
    const exited = work({ seed: SEED, repeats: 1, exitAtEnd: true })
    const terminated = work({ seed: SEED, repeats: 1000 })
    await new Promise((resolve) => terminated.worker.once('online', resolve))
    await new Promise((resolve) => setTimeout(resolve, 500))
    await terminated.worker.terminate()
    const ends = await Promise.all([thrown.end, exited.end, terminated.end])
    expect(ends[0]!.error?.message).toBe('on purpose')
    expect(ends[1]!.code).toBe(0)
    expect(ends.map(({ results }) => results)).toEqual([null, null, null])
    expect(differing(run(SEED), alone)).toEqual([])
    const later = await work({ seed: SEED, repeats: 1 }).end
    expect(differing(later.results![0]!, alone)).toEqual([])
  })
})
