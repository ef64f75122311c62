// State dicts and .safetensors files: PyTorch's keys for every class, round trips, files written by the package that
// PyTorch users write with (scripts/make-fixtures.py), and files of ours read by it.

import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import {
  BatchNorm2d,
  BatchNormThroughTime1d,
  BatchNormThroughTime2d,
  type DType,
  loadSafetensors,
  type Module,
  NeuNorm,
  saveSafetensors,
  TemporalEffectiveBatchNorm2d,
  type Tensor,
  ThresholdDependentBatchNorm3d,
  tensor,
} from '../src/index.js'
import { bytesOf } from './support/bytes.js'
import { expectClose, expectCode, expectSameBits } from './support/compare.js'
import { createLayer, NORM_CLASSES } from './support/layers.js'
import { Tree } from './support/modules.js'
import { normal, sizeOfShape } from './support/numbers.js'
import { readSafetensors } from './support/safetensors.js'
import { EXACT } from './support/tolerances.js'

const folder = mkdtempSync(join(tmpdir(), 'spikenorm-'))
afterAll(() => rmSync(folder, { recursive: true }))
const fixture = (name: string) => fileURLToPath(new URL(`./fixtures/${name}.safetensors`, import.meta.url))

const AFFINE = ['weight', 'bias']
const BUFFERS = ['running_mean', 'running_var', 'num_batches_tracked']
const steps = (names: string[], T: number) =>
  [...Array(T).keys()].flatMap((t) => names.map((name) => `bn_list.${t}.${name}`))

function randomise(layer: Module, seed: number): void {
  for (const [, value] of [...layer.namedParameters(), ...layer.namedBuffers()]) {
    value.copy_(tensor(normal(seed, value.size, 3).map(Math.abs), value.shape))
  }
}

describe('stateDict has the keys of PyTorch', () => {
  const T = 3
  const parameters = {
    batch: AFFINE,
    threshold: AFFINE,
    temporal: [...AFFINE, 'scale'],
    throughTime: ['weight'],
  }
  for (const kind of NORM_CLASSES) {
    for (const affine of [true, false]) {
      for (const track of [true, false]) {
        const what = `${affine ? '' : ' without affine'}${track ? '' : ' without running statistics'}`
        it(`for ${kind.name}${what}`, () => {
          const perStep = kind.family === 'throughTime'
          const stepMode = kind.stepModes.at(-1)!
          const layer = createLayer(kind, {
            channels: 5,
            steps: T,
            stepMode,
            dtype: 'float32',
            affine,
            track,
          })
          const own = affine ? parameters[kind.family] : kind.family === 'temporal' ? ['scale'] : []
          const trained = perStep ? steps(own, T) : own
          const buffers = track ? (perStep ? steps(BUFFERS, T) : BUFFERS) : []
          const state = layer.stateDict()
          expect(Object.keys(state).sort()).toEqual([...trained, ...buffers].sort())
          expect(
            layer
              .namedParameters()
              .map(([name]) => name)
              .sort(),
          ).toEqual([...trained].sort())
          for (const [name, value] of Object.entries(state)) {
            const isCounter = name.endsWith('tracked')
            expect(value.shape, name).toEqual(isCounter ? [] : name === 'scale' ? [T] : [5])
            expect(value.dtype, name).toBe(isCounter ? 'int64' : 'float32')
          }
        })
      }
    }
  }

  it('for NeuNorm, and with dots for modules in modules', () => {
    expect(new NeuNorm(3, 2, 4).stateDict().w!.shape).toEqual([3, 2, 4])
    expect(new NeuNorm(3, 2, 4, { sharedAcrossChannels: true }).stateDict().w!.shape).toEqual([1, 2, 4])
    const net = new Tree({
      '0': new BatchNorm2d(3),
      body: new Tree({ '1': new BatchNormThroughTime1d(1, 3) }),
    })
    const own = AFFINE.map((name) => `0.${name}`)
    expect(net.namedParameters().map(([name]) => name)).toEqual([...own, 'body.1.bn_list.0.weight'])
    expect(Object.keys(net.stateDict())).toContain('body.1.bn_list.0.running_var')
  })

  it('as a snapshot: training afterwards does not change it', () => {
    const layer = new BatchNorm2d(1)
    const state = layer.stateDict()
    layer.forward(tensor([0, 4], [2, 1, 1, 1]))
    expect([state.running_mean!.item(), state.num_batches_tracked!.item()]).toEqual([0, 0])
    expect(layer.stateDict().num_batches_tracked!.item()).toBe(1)
  })
})

describe('loadStateDict', () => {
  it('brings another layer to the same bits and the same outputs', () => {
    for (const kind of NORM_CLASSES) {
      const options = { channels: 3, steps: 2, stepMode: kind.stepModes.at(-1)!, dtype: 'float32' } as const
      const [from, to] = [createLayer(kind, options), createLayer(kind, options)]
      randomise(from, 1)
      expect(to.loadStateDict(from.stateDict())).toEqual({ missingKeys: [], unexpectedKeys: [] })
      for (const [name, value] of Object.entries(from.stateDict()))
        expectSameBits(name, to.stateDict()[name]!, value)
      const shape = [2, 2, 3, ...[[4], [2, 2], [1, 2, 2]][kind.spatial - 1]!]
      const x = tensor(normal(2, sizeOfShape(shape)), shape, { dtype: 'float32' })
      for (const mode of ['train', 'eval'] as const) {
        for (const layer of [from, to]) layer.reset()
        expectSameBits(`${kind.name} y`, to[mode]().forward(x), from[mode]().forward(x))
      }
    }
  })

  it('copies: the dict may change or go afterwards', () => {
    const layer = new BatchNorm2d(3)
    const dict = layer.stateDict()
    dict.weight = tensor([1, 2, 3], [3])
    layer.loadStateDict(dict)
    for (const value of Object.values(dict)) value.dispose()
    expectClose('weight', layer.stateDict().weight!.toFloat64Array(), [1, 2, 3], EXACT)
  })

  it('rounds where dtypes differ and keeps those of the layer', () => {
    const layer = new BatchNorm2d(2)
    const weight = tensor([Math.PI, 1 + 2 ** -30], [2], { dtype: 'float64' })
    layer.loadStateDict({
      ...layer.stateDict(),
      weight,
      running_var: tensor([2, 3], [2], { dtype: 'float16' }),
    })
    const state = layer.stateDict()
    expect([state.weight!.dtype, state.running_var!.dtype]).toEqual(['float32', 'float32'])
    expectClose('weight', state.weight!.toFloat64Array(), [Math.fround(Math.PI), 1], EXACT)
    expectClose('running_var', state.running_var!.toFloat64Array(), [2, 3], EXACT)
  })

  it('with strict: false says what did not match and loads the rest', () => {
    const layer = new BatchNorm2d(2)
    const dict = { weight: tensor([5, 6], [2]), gamma: tensor([1], [1]) }
    const { missingKeys, unexpectedKeys } = layer.loadStateDict(dict, { strict: false })
    // Not the counter, which PyTorch does without.
    expect(missingKeys.sort()).toEqual(['bias', 'running_mean', 'running_var'])
    expect(unexpectedKeys).toEqual(['gamma'])
    expectClose('weight', layer.stateDict().weight!.toFloat64Array(), [5, 6], EXACT)
  })

  it('keeps parameters, their gradients and pending forwards in place', () => {
    const layer = new BatchNorm2d(1)
    const [weight] = layer.parameters()
    const x = tensor([0, 4], [2, 1, 1, 1])
    layer.forward(x)
    layer.forward(x)
    layer.backward(x)
    const grad = weight!.grad!.clone()
    layer.loadStateDict(layer.stateDict())
    expect(layer.parameters()[0]).toBe(weight)
    expectSameBits('gradient', weight!.grad!, grad)
    expect(layer.pendingForwards).toBe(1)
  })
})

describe('files written by the safetensors package of Python', () => {
  const expected = (dict: Record<string, Tensor>) => {
    Object.keys(dict)
      .sort()
      .forEach((name, k) => {
        const value = dict[name]!
        // int64 and uint8 hold the whole part only.
        const make = (_: number, i: number) =>
          value.dtype.includes('int') ? Math.floor(k + i / 8) : k + i / 8
        expectClose(name, value.toFloat64Array(), new Float64Array(value.size).map(make), EXACT)
      })
  }

  const layers: [string, Module][] = [
    ['batch-norm', new BatchNorm2d(3)],
    ['batch-norm', new ThresholdDependentBatchNorm3d(0.5, 2, 3)],
    ['temporal-effective', new TemporalEffectiveBatchNorm2d(4, 3)],
    ['through-time', new BatchNormThroughTime2d(2, 3)],
    ['neu-norm', new NeuNorm(3, 2, 4)],
  ]
  for (const [file, layer] of layers) {
    it(`load into ${layer.constructor.name} strictly, with their values`, () => {
      layer.loadStateDict(loadSafetensors(fixture(file)))
      expected(layer.stateDict())
    })
  }

  it('load in every dtype, scalars and empty tensors among them', () => {
    const dict = loadSafetensors(fixture('dtypes'))
    expected(dict)
    for (const dtype of ['float64', 'float32', 'float16', 'bfloat16', 'uint8', 'int64']) {
      expect([dict[dtype]!.dtype, dict[dtype]!.shape]).toEqual([dtype, [2, 3]])
    }
    expect([dict.scalar!.shape, dict.empty!.shape]).toEqual([[], [0, 3]])
  })
})

/** One tensor of every dtype, with bit patterns that arithmetic would not keep. */
function everything(): Record<string, Tensor> {
  return {
    double: tensor(Float64Array.of(Math.PI, Number.NaN, -0, 5e-324), [2, 2]),
    'a.b.single': tensor(Float32Array.of(1.5, Number.NEGATIVE_INFINITY), [2]),
    half: tensor(Uint16Array.of(0x3c00, 0x7e01, 1), [3], { dtype: 'float16' }),
    brain: tensor(Uint16Array.of(0x3f80, 0xffff), [2, 1], { dtype: 'bfloat16' }),
    bytes: tensor(Uint8Array.of(0, 255, 7), [3]),
    count: tensor(BigInt64Array.of(-(2n ** 63n)), []),
    'größe ✓': tensor([1], [1]),
    empty: tensor([], [0, 3]),
  }
}

describe('saveSafetensors', () => {
  it('and loadSafetensors keep every bit, name, shape and dtype', () => {
    const path = join(folder, 'everything.safetensors')
    const dict = everything()
    saveSafetensors(path, dict)
    const loaded = loadSafetensors(path)
    expect(Object.keys(loaded).sort()).toEqual(Object.keys(dict).sort())
    for (const [name, value] of Object.entries(dict)) expectSameBits(name, loaded[name]!, value)
  })

  it('writes what a reader made from the specification reads', () => {
    const path = join(folder, 'witness.safetensors')
    const layer = new BatchNormThroughTime2d(2, 3)
    randomise(layer, 4)
    saveSafetensors(path, layer.stateDict())
    const { tensors, metadata } = readSafetensors(path)
    expect(metadata.format).toBe('pt')
    for (const [name, value] of Object.entries(layer.stateDict())) {
      expect(tensors.get(name)!.shape).toEqual([...value.shape])
      expectClose(name, tensors.get(name)!.values, value.toFloat64Array(), EXACT)
    }
  })

  it('takes a model to a file and back: same outputs, bit by bit', () => {
    const path = join(folder, 'model.safetensors')
    const create = () => new Tree({ norm: new BatchNorm2d(3), neu: new NeuNorm(3, 2, 2) })
    const [model, copy] = [create(), create()]
    const x = tensor(normal(1, 24), [2, 3, 2, 2], { dtype: 'float32' })
    model.forward(x)
    saveSafetensors(path, model.stateDict())
    copy.loadStateDict(loadSafetensors(path))
    for (const net of [model, copy]) for (const module of net.modules()) module.reset()
    expectSameBits('y', copy.eval().forward(x), model.eval().forward(x))
  })

  it('replaces a file whole or not at all', () => {
    const path = join(folder, 'kept.safetensors')
    saveSafetensors(path, { a: tensor([1], [1]) })
    const before = readFileSync(path)
    const gone = tensor([1], [1])
    gone.dispose()
    expectCode('ERR_DISPOSED', () => saveSafetensors(path, { a: tensor([2], [1]), b: gone }))
    expect(readFileSync(path)).toEqual(before)
    saveSafetensors(path, { a: tensor([2], [1]) })
    expect(loadSafetensors(path).a!.item()).toBe(2)
    expect(readdirSync(folder).filter((name) => name.includes('tmp'))).toEqual([])
  })
})

describe('ERR_FILE', () => {
  const write = (name: string, bytes: Uint8Array) => {
    const path = join(folder, name)
    writeFileSync(path, bytes)
    return path
  }
  const header = (json: string, data = 0) => {
    const bytes = Buffer.alloc(8 + json.length + data)
    bytes.writeBigUInt64LE(BigInt(json.length))
    bytes.write(json, 8)
    return bytes
  }
  const whole = readFileSync(fixture('batch-norm'))
  const broken: [string, () => string][] = [
    ['a missing file', () => join(folder, 'nothing.safetensors')],
    ['a folder', () => mkdtempSync(join(folder, 'sub'))],
    ['an empty file', () => write('empty', new Uint8Array())],
    ['text', () => write('text', Buffer.from('not a model at all'))],
    ['a file cut short', () => write('short', whole.subarray(0, whole.length - 3))],
    ['a file with bytes too many', () => write('long', Buffer.concat([whole, Buffer.alloc(3)]))],
    ['a header longer than any file', () => write('huge', Buffer.from('ffffffffffffff7f00', 'hex'))],
    ['a header that is no JSON', () => write('json', header('{{{{'))],
    [
      'offsets outside',
      () => write('far', header('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', 4)),
    ],
    [
      'a shape that is not the size',
      () => write('size', header('{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,8]}}', 8)),
    ],
    [
      'a shape past counting',
      () =>
        write(
          'count',
          header('{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,8]}}', 8),
        ),
    ],
  ]
  for (const [what, path] of broken) {
    it(`is what loading ${what} throws, naming the file`, () => {
      const file = path()
      const error = expectCode('ERR_FILE', () => loadSafetensors(file))
      expect(error.message).toContain(file)
    })
  }

  it('is what saving to nowhere throws', () => {
    const path = join(folder, 'no', 'such', 'folder.safetensors')
    expectCode('ERR_FILE', () => saveSafetensors(path, { a: tensor([1], [1]) }), 'folder.safetensors')
  })

  it('does not stand for a dtype that has no counterpart: that is ERR_DTYPE, naming the tensor', () => {
    const path = write('complex', header('{"steps":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}', 8))
    expectCode('ERR_DTYPE', () => loadSafetensors(path), 'steps', 'C64', 'skipUnsupported')
  })
})

const python = process.env.PYTHON ?? 'python3'
const hasSafetensors = spawnSync(python, ['-c', 'import safetensors']).status === 0
const READ = `import json, safetensors, sys
entries = safetensors.deserialize(open(sys.argv[1], 'rb').read())
print(json.dumps({name: [e['dtype'], list(e['shape']), bytes(e['data']).hex()] for name, e in entries}))`

describe(`the safetensors package of Python${hasSafetensors ? '' : ` (not run here: ${python} has none)`}`, () => {
  it.skipIf(!hasSafetensors)('reads every tensor we write, byte by byte', () => {
    const path = join(folder, 'python.safetensors')
    const dict = everything()
    saveSafetensors(path, dict)
    const { stdout, stderr } = spawnSync(python, ['-c', READ, path], { encoding: 'utf8' })
    expect(stderr).toBe('')
    const read = JSON.parse(stdout) as Record<string, [string, number[], string]>
    const names: Record<string, DType> = {
      F64: 'float64',
      F32: 'float32',
      F16: 'float16',
      BF16: 'bfloat16',
      U8: 'uint8',
      I64: 'int64',
    }
    expect(Object.keys(read).sort()).toEqual(Object.keys(dict).sort())
    for (const [name, value] of Object.entries(dict)) {
      const hex = Buffer.from(bytesOf(value.toTypedArray())).toString('hex')
      const [dtype, shape, data] = read[name]!
      expect([names[dtype] ?? dtype, shape, data], name).toEqual([value.dtype, [...value.shape], hex])
    }
  })
})
