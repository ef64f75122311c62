// State dicts as PyTorch takes them: without counters or with those of PyTorch 0.3, and with one name for what is shared.

import { describe, expect, it } from 'vitest'
import { BatchNorm2d, type Module, nn, type Tensor, tensor } from '../src/index.js'
import { converted, fileOf } from './cli/support.js'
import { expectClose, expectCode } from './support/compare.js'
import { createLayer, NORM_CLASSES } from './support/layers.js'
import { Tree } from './support/modules.js'
import { EXACT } from './support/tolerances.js'

type Dict = Record<string, Tensor>

const COUNTER = /num_batches_tracked$/
const without = (dict: Dict, pattern: RegExp): Dict =>
  Object.fromEntries(Object.entries(dict).filter(([name]) => !pattern.test(name)))
const withCounters = (dict: Dict, counter: (at: number) => Tensor): Dict =>
  Object.fromEntries(
    Object.entries(dict).map(([name, value], i) => [name, COUNTER.test(name) ? counter(i) : value]),
  )
const countersOf = (module: Module) =>
  Object.entries(module.stateDict()).flatMap(([name, value]) => (COUNTER.test(name) ? [value.item()] : []))

const trained = (module: Module, count: number) => {
  module.loadStateDict(withCounters(module.stateDict(), () => tensor([count], [], { dtype: 'int64' })))
  return module
}

for (const kind of NORM_CLASSES) {
  describe(`${kind.name} loads strictly`, () => {
    const create = () =>
      createLayer(kind, { channels: 3, steps: 2, stepMode: kind.stepModes.at(-1)!, dtype: 'float32' })
    const stored = create().stateDict()
    const nested = (layer: Module) => new Tree({ body: new Tree({ 1: layer }) })

    it('a dict without counters, which keep their values', () => {
      for (const make of [create, () => nested(create())]) {
        const module = trained(make(), 7)
        const dict = without(make().stateDict(), COUNTER)
        expect(module.loadStateDict(dict)).toEqual({ missingKeys: [], unexpectedKeys: [] })
        expect(countersOf(module).every((count) => count === 7)).toBe(true)
        expect(countersOf(module).length).toBeGreaterThan(0)
      }
    })

    it('counters of shape [1], also of another dtype', () => {
      const layer = create()
      const dict = withCounters(stored, (i) => tensor([i + 1], [1], { dtype: i % 2 ? 'float32' : 'int64' }))
      expect(layer.loadStateDict(dict)).toEqual({ missingKeys: [], unexpectedKeys: [] })
      expect(countersOf(layer)).toEqual(
        Object.keys(dict).flatMap((name, i) => (COUNTER.test(name) ? [i + 1] : [])),
      )
      expect(layer.stateDict()[Object.keys(dict).find((name) => COUNTER.test(name))!]!.shape).toEqual([])
    })

    it('but no counters of other shapes, nothing without a weight or statistics', () => {
      const layer = create()
      for (const shape of [[2], [1, 1], [0]]) {
        const counter = tensor(Array(shape.reduce((a, b) => a * b)).fill(1), shape)
        expectCode(
          'ERR_STATE_DICT',
          () => layer.loadStateDict(withCounters(stored, () => counter)),
          'expected shape []',
        )
      }
      for (const name of [/weight$/, /running_var$/]) {
        expectCode('ERR_STATE_DICT', () => layer.loadStateDict(without(stored, name)), 'missing keys')
      }
      const tracked = createLayer(kind, {
        ...{
          channels: 3,
          steps: 2,
          stepMode: kind.stepModes.at(-1)!,
          dtype: 'float32' as const,
          track: false,
        },
      })
      expectCode(
        'ERR_STATE_DICT',
        () => tracked.loadStateDict(stored),
        'unexpected keys',
        'num_batches_tracked',
      )
    })
  })
}

describe('convert --check', () => {
  it('takes what the layers take', () => {
    const net = new nn.Sequential(
      new BatchNorm2d(2),
      ...NORM_CLASSES.filter(({ spatial }) => spatial === 2).map((kind) =>
        createLayer(kind, { channels: 2, steps: 3, stepMode: kind.stepModes.at(-1)!, dtype: 'float32' }),
      ),
    )
    const dict = net.stateDict()
    for (const old of [
      without(dict, COUNTER),
      withCounters(dict, () => tensor([3], [1], { dtype: 'int64' })),
    ]) {
      const { status, checks } = converted(fileOf(old), '--check', 'auto')
      expect(checks.map(({ fits }: { fits: boolean }) => fits)).toEqual(
        Array(net.children().length).fill(true),
      )
      expect(status).toBe(0)
    }
    const broken = converted(fileOf(withCounters(dict, () => tensor([1, 2], [2]))), '--check', 'auto')
    expect([broken.status, broken.checks[0].wrongShape]).toEqual([
      1,
      [{ key: 'num_batches_tracked', expected: [], got: [2] }],
    ])
  })
})

describe('what is shared', () => {
  const create = () => {
    const norm = new BatchNorm2d(2)
    const net = new Tree({ encoder: new Tree({ norm }), decoder: norm, other: new BatchNorm2d(2) })
    return { net, norm }
  }

  it('is there under all of its names, as in PyTorch', () => {
    const { net } = create()
    const names = Object.keys(net.stateDict())
    expect(names).toContain('encoder.norm.weight')
    expect(names).toContain('decoder.weight')
    expect(names).toContain('decoder.running_var')
  })

  for (const kept of ['encoder.norm.', 'decoder.', 'both']) {
    it(`loads strictly under ${kept === 'both' ? 'both names' : kept}`, () => {
      const source = create()
      source.norm.loadStateDict({
        ...source.norm.stateDict(),
        weight: tensor([2, 3], [2]),
        running_mean: tensor([4, 5], [2]),
      })
      const dict = source.net.stateDict()
      const dropped = kept === 'both' ? /$^/ : kept === 'decoder.' ? /^encoder/ : /^decoder/
      const { net, norm } = create()
      expect(net.loadStateDict(without(dict, dropped))).toEqual({ missingKeys: [], unexpectedKeys: [] })
      const { weight, running_mean } = norm.stateDict()
      expectClose('weight', weight!.toFloat64Array(), [2, 3], EXACT)
      expectClose('running_mean', running_mean!.toFloat64Array(), [4, 5], EXACT)
    })
  }

  it('is missing where no name is there, and nothing else is excused', () => {
    const { net } = create()
    const dict = net.stateDict()
    expectCode(
      'ERR_STATE_DICT',
      () => net.loadStateDict(without(dict, /^(encoder|decoder)/)),
      'encoder.norm.weight',
    )
    expectCode('ERR_STATE_DICT', () => net.loadStateDict(without(dict, /^other/)), 'other.weight')
  })
})
