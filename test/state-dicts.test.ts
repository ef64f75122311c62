// A SpikingJelly state_dict of each of the 13 classes loads and saves unchanged, both ways: files written by PyTorch and
// SpikingJelly (scripts/make-state-dict-fixtures.py) come out of here with the same bytes, and what is written here loads
// strictly there, where a Python with both is named by SPIKENORM_PYTHON.

import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import {
  loadPyTorch,
  loadPyTorchCheckpoint,
  loadSafetensors,
  type Module,
  NeuNorm,
  saveSafetensors,
  type Tensor,
  tensor,
} from '../src/index.js'
import { bytesOf } from './support/bytes.js'
import { expectClose, expectSameBits } from './support/compare.js'
import { createLayer, NORM_CLASSES } from './support/layers.js'
import { readSafetensors } from './support/safetensors.js'
import { EXACT } from './support/tolerances.js'

const fixtures = fileURLToPath(new URL('./fixtures/state-dicts/', import.meta.url))
const script = fileURLToPath(new URL('../scripts/make-state-dict-fixtures.py', import.meta.url))
const all = join(fixtures, 'all.pt')
const folder = mkdtempSync(join(tmpdir(), 'spikenorm-'))
afterAll(() => rmSync(folder, { recursive: true }))

/** The layers of the script, with the same arguments. */
const LAYERS: [string, () => Module][] = [
  ...NORM_CLASSES.map((kind): [string, () => Module] => [
    kind.name,
    () =>
      createLayer(kind, {
        channels: 3,
        steps: kind.family === 'temporal' ? 4 : 2,
        stepMode: kind.stepModes.at(-1)!,
        dtype: 'float32',
        alpha: 0.5,
        vTh: 2,
      }),
  ]),
  ['NeuNorm', () => new NeuNorm(3, 2, 5)],
]

const written = (name: string) => join(fixtures, `${name}.safetensors`)

/** Saves what a layer holds; @returns the bytes of the file. */
function saved(name: string, layer: Module): Buffer {
  const path = join(folder, `${name}.safetensors`)
  saveSafetensors(path, layer.stateDict())
  return readFileSync(path)
}

describe('a state_dict of SpikingJelly', () => {
  for (const [name, create] of LAYERS) {
    it(`of ${name} loads strictly from .safetensors and is saved as the same file, byte for byte`, () => {
      const layer = create()
      const fresh = layer.stateDict()
      const result = layer.loadStateDict(loadSafetensors(written(name)))
      expect(result).toEqual({ missingKeys: [], unexpectedKeys: [] })
      const { tensors } = readSafetensors(written(name))
      const held = layer.stateDict()
      expect(Object.keys(held).sort()).toEqual([...tensors.keys()].sort())
      const seen = new Set<number>()
      for (const [key, { dtype, shape, values }] of tensors) {
        const value = held[key] as Tensor
        expect([value.dtype, value.shape], key).toEqual([dtype === 'I64' ? 'int64' : 'float32', shape])
        expectClose(key, value.toFloat64Array(), values, EXACT)
        // A value of its own everywhere, or a swap of two tensors would go unseen.
        for (const one of values) expect(seen.has(one), `${key}: ${one} occurs twice`).toBe(false)
        for (const one of values) seen.add(one)
        expect([...value.toFloat64Array()]).not.toEqual([...fresh[key]!.toFloat64Array()])
      }
      expect(saved(name, layer).equals(readFileSync(written(name)))).toBe(true)
    })

    it(`of ${name} loads strictly from a file of torch.save, in its order, and is saved as the same .safetensors`, () => {
      const layer = create()
      const dict = loadPyTorch(all, { key: [name, 'state_dict'] })
      const { keys } = (loadPyTorchCheckpoint(all) as Record<string, { keys: string[] }>)[name]!
      expect(Object.keys(dict)).toEqual(keys)
      for (const [key, value] of Object.entries(loadSafetensors(written(name)))) {
        expectSameBits(key, dict[key] as Tensor, value)
      }
      expect(layer.loadStateDict(dict)).toEqual({ missingKeys: [], unexpectedKeys: [] })
      expect(saved(name, layer).equals(readFileSync(written(name)))).toBe(true)
    })
  }

  it('is there for 13 classes', () => {
    expect(LAYERS).toHaveLength(13)
    expect(Object.keys(loadPyTorchCheckpoint(all) as object).sort()).toEqual(
      LAYERS.map(([name]) => name).sort(),
    )
  })
})

const python = process.env.SPIKENORM_PYTHON
const reason =
  python === undefined
    ? 'SPIKENORM_PYTHON names no Python'
    : spawnSync(python, ['-c', 'import safetensors.torch, spikingjelly.activation_based.layer']).status === 0
      ? null
      : `${python} has no PyTorch, SpikingJelly and safetensors`

describe(`SpikingJelly${reason === null ? '' : ` (not run here: ${reason})`}`, () => {
  it.skipIf(reason !== null)(
    'loads what is saved here strictly into each of the 13 classes, bit by bit',
    () => {
      const states = LAYERS.map(([name, create], at) => {
        const layer = create()
        const entries = Object.entries(layer.stateDict()).map(([key, value], k): [string, Tensor] => {
          const made = value.toFloat64Array().map((_, i) => 100 * at + 10 * k + i + 1)
          return [key, tensor(made, value.shape, { dtype: value.dtype })]
        })
        layer.loadStateDict(Object.fromEntries(entries))
        saved(name, layer)
        return [name, layer.stateDict()] as const
      })
      const { stdout, stderr, status } = spawnSync(python as string, [script, '--check', folder], {
        encoding: 'utf8',
      })
      expect(status, stderr).toBe(0)
      const held = JSON.parse(stdout) as Record<string, Record<string, [string, number[], string]>>
      for (const [name, state] of states) {
        expect(Object.keys(held[name]!).sort()).toEqual(Object.keys(state).sort())
        for (const [key, value] of Object.entries(state)) {
          const hex = Buffer.from(bytesOf(value.toTypedArray())).toString('hex')
          expect(held[name]![key], `${name}: ${key}`).toEqual([`torch.${value.dtype}`, [...value.shape], hex])
        }
      }
    },
    120_000,
  )
})
