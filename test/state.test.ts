// What a module keeps between calls: pending forwards, step index, NeuNorm's state and the gradients it carries,
// statistics under their switches, dtypes; and what reset, detach and the recording modes do to it.

import { describe, expect, it } from 'vitest'
import {
  BatchNorm2d,
  BatchNormThroughTime2d,
  enableGrad,
  functional,
  type Module,
  manualSeed,
  NeuNorm,
  type NormLayer,
  noGrad,
  TemporalEffectiveBatchNorm2d,
  type Tensor,
  ThresholdDependentBatchNorm2d,
  tensor,
} from '../src/index.js'
import { expectClose, expectCode, expectSameBits } from './support/compare.js'
import { describeOnDevices } from './support/devices.js'
import { createLayer, NORM_CLASSES } from './support/layers.js'
import { Tree } from './support/modules.js'
import { normal, sizeOfShape } from './support/numbers.js'
import { type Grid, ReferenceNeuNorm, sizeOf } from './support/reference.js'
import { EXACT, random } from './support/tolerances.js'

const input = (shape: number[], seed: number) =>
  tensor(normal(seed, sizeOfShape(shape)), shape, { dtype: 'float64' })
const floats = (shape: number[], seed: number) => input(shape, seed).to('float32')
const numbers = (value: Tensor | null | undefined) => value?.toFloat64Array() ?? new Float64Array()
const SHAPE = [2, 3, 2, 2]
/** The least eps there is, which is lost beside a variance of 1. */
const NO_EPS = 2 ** -126

describe('pending forwards', () => {
  it('are taken latest first, each with the input it saw', () => {
    const results = [0, 1, 2].map((which) => {
      const layer = new BatchNorm2d(3, { dtype: 'float64' })
      layer.forward(input(SHAPE, which))
      return layer.backward(input(SHAPE, 10 + which))
    })
    const layer = new BatchNorm2d(3, { dtype: 'float64' })
    for (const which of [0, 1, 2]) layer.forward(input(SHAPE, which))
    expect(layer.pendingForwards).toBe(3)
    for (const which of [2, 1, 0])
      expectSameBits(`dx ${which}`, layer.backward(input(SHAPE, 10 + which)), results[which]!)
    expect(layer.pendingForwards).toBe(0)
    expectCode('ERR_NO_FORWARD', () => layer.backward(input(SHAPE, 1)))
  })

  it('keep the weights they were computed with, whatever happens to the parameters and the input after', () => {
    const run = (change: boolean) => {
      const layer = new TemporalEffectiveBatchNorm2d(2, 3, { dtype: 'float64' })
      const x = input([2, ...SHAPE], 1)
      layer.forward(x)
      if (change) {
        x.dispose()
        for (const parameter of layer.parameters()) parameter.copy_(input([...parameter.shape], 5))
      }
      const dx = layer.backward(input([2, ...SHAPE], 2))
      return [dx, ...layer.parameters().map(({ grad }) => grad as Tensor)]
    }
    const [changed, plain] = [run(true), run(false)]
    changed.forEach((value, i) => {
      expectSameBits(`gradient ${i}`, value, plain[i]!)
    })
  })

  it('survive a switch of train, eval and step mode', () => {
    const run = (change: boolean) => {
      const layer = new BatchNorm2d(3, { dtype: 'float64' })
      layer.forward(input(SHAPE, 1))
      if (change) {
        layer.eval()
        layer.stepMode = 'm'
      }
      return layer.backward(input(SHAPE, 2))
    }
    expectSameBits('dx', run(true), run(false))
  })

  it('are dropped by reset(), on every layer of a net with resetNet', () => {
    const net = new Tree({
      a: new BatchNorm2d(3),
      b: new NeuNorm(3, 2, 2),
      c: new BatchNormThroughTime2d(4, 3),
    })
    const x = floats(SHAPE, 1)
    for (let t = 0; t < 3; t++) net.forward(x)
    expect(net.children().map(({ pendingForwards }) => pendingForwards)).toEqual([3, 3, 3])
    functional.resetNet(net)
    expect(net.children().map(({ pendingForwards }) => pendingForwards)).toEqual([0, 0, 0])
    for (const child of net.children()) expectCode('ERR_NO_FORWARD', () => child.backward(x))
  })
})

describe('recording', () => {
  const layers: (() => Module)[] = [
    () => new BatchNorm2d(3),
    () => new BatchNormThroughTime2d(99, 3),
    () => new NeuNorm(3, 2, 2),
  ]
  const x = () => floats(SHAPE, 1)

  for (const create of layers) {
    const { name } = create().constructor
    it(`of ${name} happens in training, not in eval, with enableGrad always, with noGrad never`, () => {
      const layer = create()
      const recorded = (call: (forward: () => unknown) => unknown) => {
        const before = layer.pendingForwards
        call(() => layer.forward(x()))
        return layer.pendingForwards - before
      }
      const plain = (forward: () => unknown) => forward()
      for (const [mode, expected] of [
        ['train', 1],
        ['eval', 0],
      ] as const) {
        layer[mode]()
        expect(layer.training).toBe(mode === 'train')
        expect(recorded(plain), mode).toBe(expected)
        expect(recorded(enableGrad), `enableGrad in ${mode}`).toBe(1)
        expect(recorded(noGrad), `noGrad in ${mode}`).toBe(0)
        expect(recorded((forward) => noGrad(() => enableGrad(forward)))).toBe(1)
        expect(recorded((forward) => enableGrad(() => noGrad(forward)))).toBe(0)
        expect(recorded((forward) => enableGrad(() => [noGrad(() => 0), forward()]))).toBe(1)
        expect(recorded(plain), `${mode} afterwards`).toBe(expected)
      }
    })
  }

  it('returns to what it was when the function throws or turns out to be asynchronous', async () => {
    const layer = new BatchNorm2d(3)
    const fail = () => {
      throw new RangeError('on purpose')
    }
    expect(() => noGrad(fail)).toThrow(RangeError)
    layer.forward(x())
    expect(layer.pendingForwards).toBe(1)
    layer.eval()
    expect(() => enableGrad(() => noGrad(fail))).toThrow(RangeError)
    layer.forward(x())
    expectCode('ERR_ARGUMENT', () => enableGrad(async () => 1))
    await Promise.resolve()
    layer.forward(x())
    expect(layer.pendingForwards).toBe(1)
    expect([noGrad(() => 42), enableGrad(() => 'value')]).toEqual([42, 'value'])
  })

  it('in eval leaves the statistics alone and gives the gradient of a fixed affine map', () => {
    const layer = new BatchNorm2d(3, { dtype: 'float64', eps: NO_EPS })
    layer.loadStateDict(
      { running_var: tensor([4, 4, 4], [3]), weight: tensor([3, 3, 3], [3]) },
      { strict: false },
    )
    layer.eval()
    enableGrad(() => layer.forward(input(SHAPE, 1)))
    const dy = input(SHAPE, 2)
    const expected = numbers(dy).map((value) => 1.5 * value)
    expectClose('dx', numbers(layer.backward(dy)), expected, random('dx', 'float64', expected))
    expect(layer.stateDict().num_batches_tracked!.item()).toBe(0)
  })
})

describe('the step index of BNTT', () => {
  const counts = (layer: Module) =>
    Object.entries(layer.stateDict())
      .filter(([name]) => name.endsWith('num_batches_tracked'))
      .map(([, value]) => value.item())

  it('moves by one per time step in both modes, carries over between them and starts again at reset', () => {
    const layer = new BatchNormThroughTime2d(5, 3)
    const x = (steps: number) => floats([steps, ...SHAPE], 1)
    const single = () => layer.forward(x(1).reshape(SHAPE))
    single()
    expect(counts(layer)).toEqual([1, 0, 0, 0, 0])
    functional.setStepMode(layer, 'm')
    layer.forward(x(2))
    expect(counts(layer)).toEqual([1, 1, 1, 0, 0])
    layer.stepMode = 's'
    single()
    layer.eval()
    single()
    expect(counts(layer)).toEqual([1, 1, 1, 1, 0])
    expectCode('ERR_TIME_STEP', single)
    layer.reset()
    layer.train()
    single()
    expect(counts(layer)).toEqual([2, 1, 1, 1, 0])
  })

  it('is not moved by detach(), and is not in the state dict', () => {
    const layer = new BatchNormThroughTime2d(2, 3)
    layer.forward(floats(SHAPE, 1))
    functional.detachNet(layer)
    const keys = Object.keys(layer.stateDict())
    expect(
      keys.every((key) => /^bn_list\.[01]\.(weight|running_mean|running_var|num_batches_tracked)$/.test(key)),
    ).toBe(true)
    const dict = layer.stateDict()
    layer.loadStateDict(dict)
    layer.forward(floats(SHAPE, 1))
    expect(counts(layer)).toEqual([1, 1])
  })
})

describeOnDevices('the state of NeuNorm', (device) => {
  const grid: Grid = { t: 2, n: 2, c: 3, s: 4 }
  const shape = [2, 2, 3, 2, 2]
  const pair = () => {
    const options = { k: 0.7, stepMode: 'm', dtype: 'float64', device } as const
    const layer = new NeuNorm(3, 2, 2, options)
    const reference = new ReferenceNeuNorm(3, 4, 0.7, false)
    reference.weight.set(numbers(layer.parameters()[0]))
    return { layer, reference }
  }
  const x = (seed: number) => normal(seed, sizeOf(grid))
  const on = (values: Float64Array) => tensor(values, shape, { device })
  const close = (label: string, got: Tensor, expected: Float64Array) =>
    expectClose(label, numbers(got), expected, random('dx', 'float64', expected))

  it('carries the gradient through every call since the last reset, and only then the weight is complete', () => {
    const { layer, reference } = pair()
    for (const seed of [1, 2, 3]) close('y', layer.forward(on(x(seed))), reference.forward(x(seed), grid))
    for (const seed of [11, 12, 13]) close('dx', layer.backward(on(x(seed))), reference.backward(x(seed)))
    expectClose(
      'dw',
      numbers(layer.parameters()[0]?.grad),
      reference.weightGrad,
      random('grad', 'float64', reference.weightGrad, 1),
    )
  })

  it('keeps its value at detach() but hands no gradient to the calls before', () => {
    const { layer, reference } = pair()
    layer.forward(on(x(1)))
    layer.detach()
    const y = layer.forward(on(x(2)))
    reference.forward(x(1), grid)
    reference.detach()
    close('y after', y, reference.forward(x(2), grid))
    close('dx after', layer.backward(on(x(3))), reference.backward(x(3)))
    const cut = layer.backward(on(x(4)))
    close('dx before', cut, reference.backward(x(4)))
    // The same call alone, with nothing behind it.
    const alone = pair()
    alone.layer.loadStateDict(layer.stateDict())
    alone.layer.forward(on(x(1)))
    expectSameBits('dx before', cut, alone.layer.backward(on(x(4))))
  })

  it('goes on in eval and within noGrad, where no gradient flows back through it', () => {
    const { layer, reference } = pair()
    close('recorded', layer.forward(on(x(1))), reference.forward(x(1), grid))
    close(
      'noGrad',
      noGrad(() => layer.forward(on(x(2)))),
      reference.forward(x(2), grid, false),
    )
    layer.eval()
    close('eval', layer.forward(on(x(3))), reference.forward(x(3), grid, false))
    layer.train()
    close('recorded again', layer.forward(on(x(4))), reference.forward(x(4), grid))
    close('dx', layer.backward(on(x(5))), reference.backward(x(5)))
    close('dx of the first', layer.backward(on(x(6))), reference.backward(x(6)))
  })

  it('keeps what was handed to a pending call while later calls come and go', () => {
    const { layer, reference } = pair()
    for (const seed of [1, 2]) close('y', layer.forward(on(x(seed))), reference.forward(x(seed), grid))
    close('dx 2', layer.backward(on(x(3))), reference.backward(x(3)))
    for (const seed of [4, 5]) close('y', layer.forward(on(x(seed))), reference.forward(x(seed), grid))
    for (const seed of [6, 7, 8]) close('dx', layer.backward(on(x(seed))), reference.backward(x(seed)))
  })

  it('is nothing after reset(), and is never saved', () => {
    const { layer } = pair()
    const first = layer.forward(on(x(1)))
    layer.forward(on(x(2)))
    functional.resetNet(layer)
    expectSameBits('y', layer.forward(on(x(1))), first)
    expect(Object.keys(layer.stateDict())).toEqual(['w'])
  })
})

describe('running statistics', () => {
  const stats = (layer: Module) => {
    const { running_mean, running_var, num_batches_tracked } = layer.stateDict()
    return [numbers(running_mean), numbers(running_var), numbers(num_batches_tracked)]
  }
  // Mean 2 and biased variance 4 (unbiased 16/3) in its one channel.
  const x = () => tensor([0, 4, 0, 4], [4, 1, 1, 1], { dtype: 'float64' })

  it('follow momentum, and with null the mean of all batches', () => {
    for (const [momentum, expected] of [
      [0.5, [1.5, 1 / 4 + (3 / 4) * (16 / 3)]],
      [null, [2, 16 / 3]],
      [0, [0, 1]],
    ] as const) {
      const layer = new BatchNorm2d(1, { momentum, dtype: 'float64' })
      layer.forward(x())
      layer.forward(x())
      const [mean, variance, batches] = stats(layer)
      expectClose('mean', mean!, [expected[0]], random('state', 'float64', expected))
      expectClose('variance', variance!, [expected[1]], random('state', 'float64', expected))
      expectClose('batches', batches!, [2], EXACT)
    }
  })

  it('stand still while trackRunningStats is off, yet eval goes on using them', () => {
    const layer = new BatchNorm2d(1, { dtype: 'float64', eps: NO_EPS })
    layer.trackRunningStats = false
    layer.forward(x())
    expectClose('batches', stats(layer)[2]!, [0], EXACT)
    const y = layer.eval().forward(x())
    expectClose('y', numbers(y), [0, 4, 0, 4], EXACT)
    layer.train().trackRunningStats = true
    layer.forward(x())
    expectClose('batches', stats(layer)[2]!, [1], EXACT)
  })

  it('do not exist in a layer made without them, whatever the flag becomes; eval takes the batch', () => {
    const layer = new BatchNorm2d(1, { trackRunningStats: false, dtype: 'float64', eps: NO_EPS })
    layer.trackRunningStats = true
    expectClose('y', numbers(layer.eval().forward(x())), [-1, 1, -1, 1], EXACT)
    expect(Object.keys(layer.stateDict())).toEqual(['weight', 'bias'])
  })

  it('move within noGrad too: recording is not training', () => {
    const layer = new BatchNorm2d(1)
    noGrad(() => layer.forward(x().to('float32')))
    expectClose('batches', stats(layer)[2]!, [1], EXACT)
  })
})

describe('parameters', () => {
  it('start as the table says, tdBN with alpha · vTh, and resetParameters() brings that back', () => {
    const initial: [NormLayer, Record<string, number>][] = [
      [new BatchNorm2d(2), { weight: 1, bias: 0, running_mean: 0, running_var: 1, num_batches_tracked: 0 }],
      [new ThresholdDependentBatchNorm2d(0.5, 3, 2), { weight: 1.5, bias: 0 }],
      [new TemporalEffectiveBatchNorm2d(2, 2), { weight: 1, bias: 0, scale: 1 }],
      [new BatchNormThroughTime2d(2, 2), { 'bn_list.1.weight': 1, 'bn_list.1.running_var': 1 }],
    ]
    for (const [layer, expected] of initial) {
      const check = () => {
        const state = layer.stateDict()
        for (const [name, value] of Object.entries(expected)) {
          expectClose(name, numbers(state[name]), new Float64Array(state[name]!.size).fill(value), EXACT)
        }
      }
      check()
      for (const [, value] of [...layer.namedParameters(), ...layer.namedBuffers()]) {
        value.copy_(tensor(normal(1, value.size), value.shape))
      }
      layer.resetParameters()
      check()
    }
  })

  it('of NeuNorm are drawn from U(±1/√(H·W)), anew by resetParameters(), alike after manualSeed', () => {
    manualSeed(7)
    const layer = new NeuNorm(16, 8, 8)
    const w = numbers(layer.parameters()[0])
    expect(Math.max(...w)).toBeLessThanOrEqual(1 / 8)
    expect(Math.min(...w)).toBeGreaterThanOrEqual(-1 / 8)
    const mean = w.reduce((sum, value) => sum + value, 0) / w.length
    const variance = w.reduce((sum, value) => sum + value * value, 0) / w.length
    // 1,024 uniform values: the mean within 4 of its standard deviations, the variance within 15 %.
    expect(Math.abs(mean)).toBeLessThan((4 / 8) * Math.sqrt(1 / 3 / w.length))
    expect(Math.abs(variance / (1 / 64 / 3) - 1)).toBeLessThan(0.15)
    layer.resetParameters()
    expect(numbers(layer.parameters()[0])).not.toEqual(w)
    manualSeed(7)
    expect(numbers(new NeuNorm(16, 8, 8).parameters()[0])).toEqual(w)
  })

  it('have no gradient before backward and after zeroGrad()', () => {
    const layer = new BatchNorm2d(3)
    const grads = () => layer.parameters().map(({ grad }) => grad)
    expect(grads()).toEqual([null, null])
    const x = floats(SHAPE, 1)
    layer.forward(x)
    layer.backward(x)
    expect(grads().map((grad) => grad?.shape)).toEqual([[3], [3]])
    layer.zeroGrad()
    expect(grads()).toEqual([null, null])
  })

  it('have null gradients in BNTT for the steps that never ran', () => {
    const layer = new BatchNormThroughTime2d(3, 3)
    const x = floats(SHAPE, 1)
    layer.forward(x)
    layer.backward(x)
    expect(layer.parameters().map(({ grad }) => grad !== null)).toEqual([true, false, false])
  })
})

describeOnDevices('to(dtype)', (device) => {
  for (const kind of NORM_CLASSES.filter(({ spatial }) => spatial === 2)) {
    it(`keeps the identity of every parameter of ${kind.name}, and its values`, () => {
      const stepMode = kind.stepModes.at(-1)!
      const layer = createLayer(kind, { channels: 3, steps: 2, stepMode, dtype: 'float32', device })
      const x = tensor(normal(1, 48), [2, ...SHAPE], { dtype: 'float32', device })
      layer.forward(x)
      layer.backward(x)
      const before = { parameters: layer.parameters(), state: layer.stateDict() }
      const grads = before.parameters.map(({ grad }) => numbers(grad))
      layer.reset()
      expect(layer.to('float64')).toBe(layer)
      before.parameters.forEach((parameter, i) => {
        expect(layer.parameters()[i]).toBe(parameter)
        expect([parameter.dtype, parameter.grad?.dtype]).toEqual(['float64', 'float64'])
        expectClose('gradient', numbers(parameter.grad), grads[i]!, EXACT)
      })
      for (const [name, value] of Object.entries(layer.stateDict())) {
        expect(value.dtype).toBe(name.endsWith('tracked') ? 'int64' : 'float64')
        expectClose(name, numbers(value), numbers(before.state[name]), EXACT)
      }
      // The converted rows are the ones that forward reads and training moves.
      const wide = x.to('float64')
      layer.forward(wide)
      layer.backward(wide)
      const counter = Object.keys(before.state).find((name) => name.endsWith('num_batches_tracked'))!
      expect(layer.stateDict()[counter]!.item()).toBe(2)
      const twin = createLayer(kind, { channels: 3, steps: 2, stepMode, dtype: 'float64', device })
      twin.loadStateDict(before.state)
      twin.forward(wide)
      for (const [name, value] of Object.entries(twin.stateDict()))
        expectSameBits(name, layer.stateDict()[name]!, value)
      layer.reset()
      expectCode('ERR_DTYPE', () => layer.forward(x))
    })
  }

  it('of a half type keeps float32 parameters and computes half outputs', () => {
    for (const dtype of ['float16', 'bfloat16'] as const) {
      const layer = new BatchNorm2d(3, { device }).to(dtype)
      const x = tensor(normal(1, 24), SHAPE, { dtype, device })
      expect(layer.forward(x).dtype).toBe(dtype)
      expect(layer.backward(x).dtype).toBe(dtype)
      expect(layer.parameters().map((parameter) => [parameter.dtype, parameter.grad?.dtype])).toEqual([
        ['float32', 'float32'],
        ['float32', 'float32'],
      ])
    }
  })

  it('of NeuNorm takes the carried state along', () => {
    manualSeed(2)
    const layer = new NeuNorm(3, 2, 2, { device })
    const x = tensor(normal(1, 24), SHAPE, { dtype: 'float32', device })
    noGrad(() => layer.forward(x))
    layer.to('float64')
    const y = layer.forward(x.to('float64'))
    layer.reset()
    layer.forward(x.to('float64'))
    const expected = numbers(layer.forward(x.to('float64')))
    expectClose('y', numbers(y), expected, random('y', 'float32', expected))
  })
})
