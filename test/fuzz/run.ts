// Gives inputs to every reader of files until the time is over: a program of its own, so that whoever started it can tell a
// hang, a crash and what it took of memory. Arguments: seconds, seed, a folder for inputs.
//
// An input is a file named after its seed, removed when the readers are done with it: what is left is the one that hung.

import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import {
  loadPyTorch,
  loadPyTorchCheckpoint,
  loadSafetensors,
  loadSafetensorsMetadata,
  SpikenormError,
  Tensor,
} from '../../src/index.js'
import { inputOf } from './inputs.js'
import { Random } from './random.js'

const [seconds = 5, seed = 0] = process.argv.slice(2, 4).map(Number)
const folder = process.argv[4] as string

/** Milliseconds that any reader may take for an input of 64 KiB. */
const MOST_TIME = 5000
const EXPECTED = ['ERR_FILE', 'ERR_DTYPE', 'ERR_OUT_OF_MEMORY']
const skipUnsupported = true

const READERS: [string, (path: string) => unknown][] = [
  ['loadSafetensors', (path) => loadSafetensors(path)],
  ['loadSafetensors, skipUnsupported', (path) => loadSafetensors(path, { skipUnsupported })],
  ['loadSafetensorsMetadata', (path) => loadSafetensorsMetadata(path)],
  ['loadPyTorch', (path) => loadPyTorch(path)],
  ['loadPyTorch, key', (path) => loadPyTorch(path, { key: 'a', skipUnsupported })],
  ['loadPyTorch, skipUnsupported', (path) => loadPyTorch(path, { skipUnsupported })],
  ['loadPyTorchCheckpoint', (path) => loadPyTorchCheckpoint(path)],
  ['loadPyTorchCheckpoint, skipUnsupported', (path) => loadPyTorchCheckpoint(path, { skipUnsupported })],
]

/** Reads every tensor of a value and frees it; each part once. */
function use(value: unknown, seen = new Set<unknown>()): void {
  if (value === null || typeof value !== 'object' || seen.has(value)) return
  seen.add(value)
  if (value instanceof Tensor) {
    if (value.toTypedArray().length !== value.size)
      throw new Error(`${value.size} elements by shape, others by memory`)
    value.dispose()
  } else if (!ArrayBuffer.isView(value)) {
    for (const part of Object.values(value)) use(part, seen)
  }
}

const stored = ['../fixtures/pytorch-files/', '../fixtures/', '../fixtures/from-pytorch/', './corpus/'].map(
  (name) => fileURLToPath(new URL(name, import.meta.url)),
)
const corpus = stored
  .flatMap((from) => readdirSync(from).map((name) => join(from, name)))
  .filter((name) => /\.(pt|safetensors)$/.test(name))
  .map((name) => readFileSync(name))

const outcomes = new Map<string, number>()
const count = (outcome: string) => outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)

function read(path: string): void {
  for (const [name, reader] of READERS) {
    const start = Date.now()
    try {
      use(reader(path))
      count(`${name}: loaded`)
    } catch (thrown) {
      if (!(thrown instanceof SpikenormError) || !EXPECTED.includes(thrown.code)) {
        throw new Error(`${name}: ${path}`, { cause: thrown })
      }
      if (thrown.message.length > 2000)
        throw new Error(`${name}: ${path}: a message of ${thrown.message.length} characters`)
      count(`${name}: ${thrown.code}`)
    }
    const took = Date.now() - start
    if (took > MOST_TIME) throw new Error(`${name}: ${path}: took ${took} ms`)
  }
}

const end = Date.now() + 1000 * seconds
let inputs = 0
// The stored files as they are, then what is made of them.
for (; Date.now() < end; inputs++) {
  const random = new Random(seed + inputs)
  const path = join(folder, `seed-${seed + inputs}`)
  writeFileSync(path, corpus[inputs] ?? inputOf(random, corpus))
  read(path)
  rmSync(path)
}
const { maxRSS } = process.resourceUsage()
console.log(
  JSON.stringify({
    inputs,
    megabytes: Math.round(maxRSS / 1024),
    outcomes: Object.fromEntries([...outcomes].sort()),
  }),
)
