// Run by memory.test.ts in a process of its own: 10,000 steps of a small net that never calls dispose(), and what
// memory looked like before and after them. Prints one line of JSON.
//
//   node --expose-gc --import tsx memory-loop.ts inference|training|abandoned|forgotten sync|async

import {
  BatchNorm2d,
  BatchNormThroughTime2d,
  emptyCache,
  functional,
  memoryStats,
  NeuNorm,
  TemporalEffectiveBatchNorm2d,
  tensor,
} from '../../src/index.js'
import { Tree } from './modules.js'
import { MEMORY } from './tolerances.js'

export interface Reading {
  resident: number
  heap: number
  external: number
  tensors: number
}

export interface Report {
  before: Reading
  after: Reading
  /** Largest of each, sampled along the way without collecting anything. */
  most: Reading
  milliseconds: number
}

const STEPS = 10_000
/**
 * The resident size levels off only when garbage has piled up to its full height, at a moment of its own. So rounds of
 * STEPS go on until one is level, this many at most: a leak makes every one of them grow.
 */
const ROUNDS = 5
const [T, N, C, H, W] = [2, 2, 4, 8, 8] as const

const [kind, style] = process.argv.slice(2)
const net = new Tree({
  bn: new BatchNorm2d(C),
  tebn: new TemporalEffectiveBatchNorm2d(T, C),
  bntt: new BatchNormThroughTime2d(T, C),
  neu: new NeuNorm(C, H, W),
})
functional.setStepMode(net, 'm')
if (kind === 'inference') net.eval()
const values = Float32Array.from({ length: T * N * C * H * W }, (_, i) => Math.sin(i))

function step(): void {
  const x = tensor(values, [T, N, C, H, W])
  if (kind === 'forgotten') {
    // The planted leak: recorded, and never popped. BNTT would run out of steps, so it is left out.
    net.parts.bn?.forward(x)
    return
  }
  if (kind === 'abandoned') {
    // What a forward has saved goes with its layer, though nobody calls backward, reset or dispose.
    new BatchNorm2d(C, { stepMode: 'm' }).forward(x)
    new NeuNorm(C, H, W, { stepMode: 'm' }).forward(x)
    return
  }
  // An inference loop need not reset anything but the step index: eval forwards are not recorded.
  if (kind === 'inference') net.parts.bntt?.reset()
  else functional.resetNet(net)
  const y = net.forward(x)
  if (kind === 'training') {
    net.backward(y)
    net.zeroGrad()
  }
}

function read(): Reading {
  const { rss, heapUsed, external } = process.memoryUsage()
  return { resident: rss, heap: heapUsed, external, tensors: memoryStats().allocated }
}

function settled(): Reading {
  for (let i = 0; i < 3; i++) globalThis.gc?.()
  // Frees what was collected and gives the pool's spare blocks back, so that only what is alive counts.
  emptyCache()
  return read()
}

const most: Reading = { resident: 0, heap: 0, external: 0, tensors: 0 }
function sample(): void {
  const { rss, heapUsed, external } = process.memoryUsage()
  most.resident = Math.max(most.resident, rss)
  most.heap = Math.max(most.heap, heapUsed)
  most.external = Math.max(most.external, external)
}

async function round(): Promise<Reading> {
  for (let i = 0; i < STEPS; i++) {
    step()
    if (i % 100 === 0) sample()
    if (style === 'async' && i % 10 === 0) await new Promise(setImmediate)
  }
  // Not one turn of the event loop between the steps and this in the synchronous style.
  return settled()
}

async function main(): Promise<void> {
  const start = performance.now()
  let before = await round()
  let after = await round()
  for (let n = 1; n < ROUNDS && after.resident - before.resident > MEMORY.residentBytes; n++) {
    before = after
    after = await round()
  }
  most.tensors = memoryStats().peak
  const report: Report = { before, after, most, milliseconds: performance.now() - start }
  console.log(JSON.stringify(report))
}

await main()
