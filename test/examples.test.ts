// The examples as their readers run them: child processes, held to the numbers that they print.

import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { cuda, loadSafetensors } from 'spikenorm'
import { afterAll, describe, expect, it } from 'vitest'
import { expectClose } from './support/compare.js'
import { EXACT, EXAMPLES, peer } from './support/tolerances.js'

const ROOT = join(import.meta.dirname, '..')
const FOLDER = join(ROOT, 'examples')
const SCRATCH = mkdtempSync(join(tmpdir(), 'spikenorm-examples-'))
const MINUTE = 60_000

afterAll(() => rmSync(SCRATCH, { recursive: true, force: true }))

/** What an example prints; it has to end well and print nothing else. */
function run(name: string, args: string[] = []): string {
  const command = ['--import', 'tsx', join(FOLDER, name), ...args]
  const { stdout, stderr, status } = spawnSync(process.execPath, command, { cwd: ROOT, encoding: 'utf8' })
  expect(stderr).toBe('')
  expect(status).toBe(0)
  return stdout
}

/** The number behind `label` in what an example prints. */
function number(printed: string, label: string): number {
  const found = printed.match(new RegExp(`${label}:? ([-\\d.e+]+)`))?.[1]
  if (found === undefined) throw new Error(`no number behind '${label}' in:\n${printed}`)
  return Number(found)
}

/** The losses in lines such as `10 0.1234`. */
function losses(printed: string): number[] {
  return [...printed.matchAll(/^\d+ (\d+\.\d+)$/gm)].map(([, loss]) => Number(loss))
}

describe('port-from-spikingjelly.ts', { timeout: MINUTE }, () => {
  const out = join(SCRATCH, 'ported.safetensors')
  let printed = ''

  it('gives the logits, the loss and the gradients that SpikingJelly gave', () => {
    printed = run('port-from-spikingjelly.ts', ['--out', out])
    expect(printed).toContain('loaded 15 tensors')
    for (const label of ['logits: off by', 'gradients: off by', 'weights after a step: off by']) {
      expect(number(printed, label), label).toBeLessThan(EXAMPLES.port)
    }
    const [here, there] = printed.match(/loss: ([\d.]+) here, ([\d.]+) there/)?.slice(1) ?? []
    expect(here).toBe(there)
    expect(Number(here)).toBeGreaterThan(0)
  })

  it("writes a state_dict with SpikingJelly's keys, shapes, dtypes and values after its own step", () => {
    const fixture = loadSafetensors(join(FOLDER, 'port-from-spikingjelly.safetensors'))
    const written = loadSafetensors(out)
    const keys = Object.keys(fixture).filter((name) => name.startsWith('net.'))
    expect(Object.keys(written).sort()).toEqual(keys.map((name) => name.slice('net.'.length)).sort())
    for (const [name, value] of Object.entries(written)) {
      const expected = fixture[`stepped.${name}`]!
      expect([name, value.dtype, ...value.shape]).toEqual([name, expected.dtype, ...expected.shape])
      const values = expected.toFloat64Array()
      const gate = value.dtype === 'int64' ? EXACT : peer(values)
      expectClose(name, value.toFloat64Array(), values, gate)
    }
  })

  // A Python with torch, spikingjelly and safetensors is not part of the project.
  const python = process.env.SPIKENORM_PYTHON
  const why = python ? '' : ' (not run here: SPIKENORM_PYTHON names no Python with SpikingJelly)'
  it.skipIf(!python)(`writes a state_dict that SpikingJelly loads strictly${why}`, () => {
    const script = join(FOLDER, 'port-from-spikingjelly.py')
    const { stdout, stderr, status } = spawnSync(python!, [script, '--check', out], { encoding: 'utf8' })
    expect(stderr).toBe('')
    expect(stdout).toContain('loaded strictly')
    expect(status).toBe(0)
  })
})

it('online-inference.ts answers right before the last frame, leaves no memory behind, and equals all frames at once', {
  timeout: MINUTE,
}, () => {
  const printed = run('online-inference.ts')
  expect(number(printed, 'accuracy')).toBeGreaterThanOrEqual(0.9)
  const frames = number(printed, 'after')
  expect(frames).toBeGreaterThan(1)
  expect(frames).toBeLessThan(6)
  expect(number(printed, 'memory has grown by')).toBe(0)
  expect(number(printed, 'all at once: off by')).toBe(EXACT.absolute)
})

it('residual-net.ts learns through four blocks, from a gradient that has not vanished', {
  timeout: MINUTE,
}, () => {
  const printed = run('residual-net.ts')
  expect(printed).toContain('2.0.module.1.weight')
  const [first, ...later] = losses(printed)
  expect(Math.abs(first! - Math.log(3))).toBeLessThan(0.3)
  expect(later.at(-1)!).toBeLessThan(first! / 10)
  expect(number(printed, "first layer's gradient")).toBeGreaterThan(1e-3)
  expect(number(printed, 'accuracy on new data')).toBeGreaterThanOrEqual(0.9)
})

it('residual-net.ts has a short mode', { timeout: MINUTE }, () => {
  const [first, ...later] = losses(run('residual-net.ts', ['--steps', '6']))
  expect(later).toHaveLength(1)
  expect(later[0]!).toBeLessThan(first!)
})

it('mixed-precision.ts trains in half types as in float32, beside float32 parameters', {
  timeout: MINUTE,
}, () => {
  const printed = run('mixed-precision.ts')
  const row =
    /^(\w+): loss ([\d.]+) to ([\d.]+), activations (\w+), parameters (\w+), running statistics (\w+)$/gm
  const rows = [...printed.matchAll(row)].map((found) => found.slice(1))
  expect(rows.map(([dtype]) => dtype)).toEqual(['float32', 'bfloat16', 'float16'])
  const reference = Number(rows[0]![1])
  for (const [dtype, first, last, activations, parameters, statistics] of rows) {
    expect([activations, parameters, statistics]).toEqual([dtype, 'float32', 'float32'])
    expect(Math.abs(Number(first) - reference), dtype).toBeLessThan(EXAMPLES.half * reference)
    expect(Number(last), dtype).toBeLessThan(reference / 10)
  }
})

it('custom-loop.ts learns, and its truncated gradient is that of windows on their own', {
  timeout: MINUTE,
}, () => {
  const printed = run('custom-loop.ts')
  const [first, ...later] = losses(printed)
  expect(later).toHaveLength(5)
  expect(later.at(-1)!).toBeLessThan(first! / 5)
  expect(number(printed, 'after each window: off by')).toBeLessThan(EXAMPLES.order)
  expect(number(printed, 'against all at once: off by')).toBeLessThan(EXAMPLES.order)
  // Not the whole gradient, and not nothing: the chain through the voltage is cut in the middle.
  expect(number(printed, 'left out by truncation')).toBeGreaterThan(0.01)
  expect(number(printed, 'left out by truncation')).toBeLessThan(1)
})

const reason = cuda.unavailableReason()

it.skipIf(reason !== null)(
  `device-pointers.ts shares memory both ways${reason === null ? '' : ` (not run here: ${reason})`}`,
  { timeout: MINUTE },
  () => {
    const printed = run('device-pointers.ts')
    const [from, to] =
      printed
        .match(/in at (0x\w+), out at (0x\w+)/)
        ?.slice(1)
        .map(Number) ?? []
    expect(from).toBeGreaterThan(0)
    expect(to).not.toBe(from)
    expect(number(printed, 'forward')).toBeGreaterThanOrEqual(0)
    expect(printed).toContain('shared: true')
    expect(number(printed, 'against the CPU: off by')).toBeLessThan(EXAMPLES.devices)
    expect(printed).toContain('ERR_ARGUMENT')
  },
)

it.skipIf(reason === null)(
  'device-pointers.ts says why it is skipped without a device',
  { timeout: MINUTE },
  () => {
    expect(run('device-pointers.ts')).toBe(`skipped: this example needs a CUDA device, and ${reason}\n`)
  },
)

describe('examples/README.md', () => {
  const text = readFileSync(join(FOLDER, 'README.md'), 'utf8')
  const examples = readdirSync(FOLDER).filter((name) => name !== 'README.md')

  it('has a line for every example, and this file runs each', () => {
    const own = readFileSync(import.meta.filename, 'utf8')
    const programs = examples.filter((name) => name.endsWith('.ts'))
    expect(programs.length).toBeGreaterThan(4)
    expect(programs.filter((name) => !text.includes(`| [${name}](${name})`))).toEqual([])
    expect(programs.filter((name) => !own.includes(`run('${name}'`))).toEqual([])
  })

  it('links only to files that exist', () => {
    const links = [...text.matchAll(/\]\(([^)]+)\)/g)].map(([, path]) => path!)
    expect(links.filter((path) => !examples.includes(path))).toEqual([])
  })
})
