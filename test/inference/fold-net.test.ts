// foldNet: a copy of a net for inference with every norm behind a convolution or linear layer folded into it.

import { describe, expect, it } from 'vitest'
import {
  BatchNorm1d,
  BatchNorm2d,
  BatchNorm3d,
  BatchNormThroughTime2d,
  foldNet,
  functional,
  Module,
  manualSeed,
  NeuNorm,
  nn,
  noGrad,
  randperm,
  TemporalEffectiveBatchNorm1d,
  TemporalEffectiveBatchNorm2d,
  type Tensor,
  ThresholdDependentBatchNorm2d,
  tensor,
} from '../../src/index.js'
import { expectClose, expectCode, expectSameBits } from '../support/compare.js'
import { expectSameSnapshot, snapshot, Tree } from '../support/modules.js'
import { normal } from '../support/numbers.js'
import { EXACT, random } from '../support/tolerances.js'

const T = 3
const m = { stepMode: 'm', dtype: 'float64' } as const
const float64 = { dtype: 'float64' } as const

/** A spiking net with every family of norms, an unfolded norm, a residual block and neurons. */
function spikingNet() {
  const block = new nn.Sequential(
    new nn.Conv2d(4, 4, 3, { padding: 1, bias: false, ...m }),
    new BatchNormThroughTime2d(T, 4, m),
    new nn.LIFNode({ vThreshold: 0.5, stepMode: 'm' }),
  )
  return new nn.Sequential(
    new BatchNorm2d(2, m),
    new nn.Conv2d(2, 4, 3, { padding: 1, ...m }),
    new ThresholdDependentBatchNorm2d(1, 0.5, 4, float64),
    new nn.IFNode({ vThreshold: 0.4, vReset: null, surrogate: 'atan', detachReset: true, stepMode: 'm' }),
    new nn.Residual(block),
    new NeuNorm(4, 6, 6, { k: 0.8, sharedAcrossChannels: true, ...m }),
    new nn.MaxPool2d([2, 3], { stride: 2, padding: [1, 0], stepMode: 'm' }),
    new nn.Conv2d(4, 3, 2, { stride: [2, 1], ...m }),
    new TemporalEffectiveBatchNorm2d(T, 3, float64),
    new nn.AvgPool2d(1, { stepMode: 'm' }),
    new nn.Flatten({ stepMode: 'm' }),
    new nn.Linear(6, 5, { bias: false, ...m }),
    new TemporalEffectiveBatchNorm1d(T, 5, float64),
    new nn.LIFNode({ tau: 3, decayInput: false, vReset: -0.1, vThreshold: 0.3, stepMode: 'm' }),
    new nn.Linear(5, 2, m),
  )
}

const input = (seed: number) => tensor(normal(seed, T * 8 * 2 * 36, 0.3), [T, 8, 2, 6, 6])

/** A net that has seen a few batches: statistics, weights and states are not what they began as. */
function trained() {
  const net = spikingNet()
  for (let seed = 1; seed <= 3; seed++) {
    functional.resetNet(net)
    net.forward(input(seed))
  }
  for (const parameter of net.parameters()) {
    const moved = normal(parameter.size, parameter.size, 0, 0.2)
    const values = parameter.toFloat64Array().map((value, i) => value + (moved[i] as number))
    parameter.copy_(tensor(values, parameter.shape))
  }
  return net
}

const numbers = (value: Tensor) => value.toFloat64Array()
/** The fields of a module that are values. */
const plain = (module: Module) =>
  Object.fromEntries(
    Object.entries(module).filter(([, value]) => !(value instanceof Object) || Array.isArray(value)),
  )
const classes = (modules: Iterable<Module>) => [...modules].map((module) => module.constructor)

describe('foldNet', () => {
  it('gives what the net gives in evaluation, from its initial state on', () => {
    const net = trained()
    const folded = foldNet(net)
    functional.resetNet(net)
    const x = input(9)
    const want = numbers(net.eval().forward(x))
    const got = numbers(folded.forward(x))
    expect(new Set(want).size, 'the net is alive: outputs differ').toBeGreaterThan(5)
    expectClose('y', got, want, random('y', 'float64', want, 100))
    functional.resetNet(folded)
    expectClose('after resetNet', numbers(folded.forward(x)), got, EXACT)
  })

  it('leaves the net, its states, its pending forwards and the random numbers as they are', () => {
    const net = trained()
    const before = snapshot(net)
    const neuron = net.at(3) as nn.IFNode
    const v = neuron.v as Tensor
    manualSeed(5)
    const folded = foldNet(net)
    const drawn = randperm(100)
    manualSeed(5)
    expect(randperm(100)).toEqual(drawn)
    expectSameSnapshot('net', snapshot(net), before)
    expectSameBits('v', neuron.v as Tensor, v)
    const x = input(9)
    const was = numbers(folded.forward(x))
    functional.resetNet(folded)
    net.dispose()
    expectClose('y', numbers(folded.forward(x)), was, EXACT)
  })

  it('records nothing and holds no norm that could be folded; keys of the rest stay', () => {
    const net = trained()
    const folded = foldNet(net)
    folded.forward(input(9))
    expect(folded.modules().map(({ pendingForwards }) => pendingForwards)).toEqual(
      folded.modules().map(() => 0),
    )
    expect(classes(folded.modules())).not.toContain(ThresholdDependentBatchNorm2d)
    const gone = /^(2|8|12)\.|module\.1\./
    const kept = Object.keys(net.stateDict()).filter(
      (key) => !gone.test(key) && !/^(4\.module\.0|7|11)\./.test(key),
    )
    const keys = Object.keys(folded.stateDict())
    expect(keys.filter((key) => gone.test(key))).toEqual([])
    expect(keys).toEqual(expect.arrayContaining(kept))
    expect(keys.filter((key) => key.startsWith('1.'))).toEqual(['1.weight', '1.bias'])
    expect(keys.filter((key) => key.startsWith('11.'))).toEqual(
      [0, 1, 2].flatMap((t) => [`11.${t}.weight`, `11.${t}.bias`]),
    )
    expect(folded.at(2)).toBeInstanceOf(nn.Identity)
    expect(folded.length).toBe(net.length)
  })

  it('copies every module with its options', () => {
    const net = trained()
    const copied = [0, 3, 5, 6, 9, 10, 13, 14]
    const folded = foldNet(net)
    for (const index of copied) {
      const [copy, original] = [folded.at(index) as Module, net.at(index) as Module]
      expect(copy).not.toBe(original)
      expect(copy.constructor).toBe(original.constructor)
      expect(copy.stepMode).toBe(original.stepMode)
      expect(plain(copy)).toEqual(plain(original))
      const state = original.stateDict()
      for (const [name, value] of Object.entries(copy.stateDict()))
        expectSameBits(name, value, state[name] as Tensor)
    }
  })

  it('copies what is not folded with every option that is not at its default', () => {
    const options = { eps: 1e-3, momentum: null, affine: false, channelsLast: true, ...m } as const
    const toggled = (from: boolean) => {
      const norm = new BatchNorm2d(4, { ...options, trackRunningStats: from })
      norm.trackRunningStats = !from
      return norm
    }
    const modules = [
      toggled(true),
      toggled(false),
      new ThresholdDependentBatchNorm2d(2, 0.5, 4, { ...options, momentum: 0.3 }),
      new TemporalEffectiveBatchNorm2d(T, 4, options),
      new BatchNormThroughTime2d(T, 4, options),
      new nn.Conv2d(2, 4, [3, 2], { stride: [2, 1], padding: [1, 0], bias: false, ...m }),
      new nn.Linear(2, 4, { bias: false, ...m }),
      new nn.LIFNode({ surrogate: 'atan', detachReset: true, vReset: null, stepMode: 'm' }),
    ]
    for (const module of modules) {
      const copy = foldNet<Module>(module)
      const { name } = module.constructor
      expect(plain(copy), name).toEqual(plain(module))
      expect(copy.stepMode, name).toBe(module.stepMode)
      expect(Object.keys(copy.stateDict()), name).toEqual(Object.keys(module.stateDict()))
      // An accessor, which is no field.
      expect(Reflect.get(copy, 'momentum'), name).toBe(Reflect.get(module, 'momentum'))
    }
  })

  it('copies norms whose channels come last as such', () => {
    const options = { channelsLast: true, ...m }
    const net = new nn.Sequential(
      new BatchNorm2d(4, options),
      new BatchNormThroughTime2d(T, 4, options),
      new NeuNorm(4, 3, 2, options),
    )
    const x = tensor(normal(1, T * 5 * 3 * 2 * 4), [T, 5, 3, 2, 4])
    net.forward(x)
    const folded = foldNet(net)
    functional.resetNet(net)
    expectClose('y', numbers(folded.forward(x)), numbers(net.eval().forward(x)), EXACT)
  })

  it('works in single steps where the net does', () => {
    const net = new nn.Sequential(
      new nn.Conv2d(2, 4, 3, float64),
      new BatchNormThroughTime2d(T, 4, float64),
      new nn.LIFNode({ vThreshold: 0.2 }),
      new nn.Flatten(),
      new nn.Linear(64, 3, float64),
      new BatchNorm1d(3, float64),
    )
    for (let t = 0; t < T; t++) net.forward(tensor(normal(t, 144), [2, 2, 6, 6]))
    const folded = foldNet(net)
    functional.resetNet(net)
    net.eval()
    for (let t = 0; t < T; t++) {
      const x = tensor(normal(7 + t, 144), [2, 2, 6, 6])
      const want = numbers(net.forward(x))
      expectClose(`step ${t}`, numbers(folded.forward(x)), want, random('y', 'float64', want, 10))
    }
    expectCode('ERR_TIME_STEP', () => folded.forward(tensor(normal(1, 144), [2, 2, 6, 6])), 'reset()')
    functional.setStepMode(folded, 'm')
    functional.resetNet(folded)
    folded.forward(tensor(normal(1, T * 144), [T, 2, 2, 6, 6]))
  })

  it('folds a norm into nothing but the layer right before it', () => {
    const net = new nn.Sequential(
      new nn.Conv2d(2, 2, 1, float64),
      new nn.IFNode({ vThreshold: 0.1 }),
      new BatchNorm2d(2, float64),
    )
    net.forward(tensor(normal(1, 72), [4, 2, 3, 3]))
    const folded = foldNet(net)
    expect(classes(folded)).toEqual([nn.Conv2d, nn.IFNode, BatchNorm2d])
    functional.resetNet(net)
    const x = tensor(normal(2, 72), [4, 2, 3, 3])
    expectClose('y', numbers(folded.forward(x)), numbers(net.eval().forward(x)), EXACT)
  })

  it('copies the layers per step that folding makes in the order of time, cyclic ones as such', () => {
    const norm = new TemporalEffectiveBatchNorm1d(T, 2, float64)
    norm.loadStateDict({ ...norm.stateDict(), scale: tensor([1, 2, -3], [T]) })
    const folded = foldNet(new nn.Sequential(new nn.Linear(2, 2, m), norm))
    const x = tensor(normal(1, T * 4 * 2), [T, 4, 2])
    const want = numbers(folded.forward(x))
    const again = foldNet(folded)
    for (const call of ['first call', 'second call, no reset()'])
      expectClose(call, numbers(again.forward(x)), want, EXACT)
  })

  it('folds norms that follow each other, also into what was folded before', () => {
    const net = new nn.Sequential(
      new nn.Conv2d(1, 2, 2, float64),
      new BatchNorm2d(2, float64),
      new BatchNorm2d(2, float64),
    )
    net.forward(tensor(normal(1, 36), [4, 1, 3, 3]))
    const folded = foldNet(net)
    expect(classes(folded)).toEqual([nn.Conv2d, nn.Identity, nn.Identity])
    const x = tensor(normal(2, 9), [1, 1, 3, 3])
    const want = noGrad(() => numbers(net.eval().forward(x)))
    expectClose('y', numbers(folded.forward(x)), want, random('y', 'float64', want, 10))
    expectClose('folded twice', numbers(foldNet(folded).forward(x)), numbers(folded.forward(x)), EXACT)
  })

  it('keeps the step modes of containers and of what is in them apart', () => {
    const inner = new nn.Sequential(new nn.Flatten({ stepMode: 'm' }))
    const net = new nn.Sequential(inner, new nn.PerStep([new nn.Linear(2, 2), new nn.Identity()]))
    ;(net.at(1) as nn.PerStep).stepMode = 'm'
    const modes = (root: Module) => root.modules().map(({ stepMode }) => stepMode)
    expect(modes(foldNet(net))).toEqual(modes(net))
  })

  it('keeps what is shared shared, and folds it where it can', () => {
    const conv = new nn.Conv2d(2, 2, 1, float64)
    const neuron = new nn.LIFNode()
    const net = new nn.Sequential(conv, new BatchNorm2d(2, float64), neuron, conv, neuron)
    const folded = foldNet(net)
    expect(folded.at(2)).toBe(folded.at(4))
    expect(folded.at(3)).toBeInstanceOf(nn.Conv2d)
    expect(folded.at(3)).not.toBe(folded.at(0))
    const norm = new BatchNormThroughTime2d(4, 2, float64)
    const twice = new nn.Sequential(conv, norm, new nn.Conv2d(2, 2, 1, float64), norm)
    expectCode('ERR_ARGUMENT', () => foldNet(twice), '1:', 'more than once')
    const copy = foldNet(twice, { strict: false })
    expect(copy.at(1)).toBe(copy.at(3))
  })

  it('throws where a norm cannot be folded, naming its place, or copies it where strict is false', () => {
    const norm = new BatchNorm2d(2, { trackRunningStats: false, ...float64 })
    const inner = new nn.Sequential(new nn.Conv2d(2, 2, 1, float64), norm)
    const net = new nn.Sequential(new nn.Identity(), new nn.Residual(inner))
    expectCode('ERR_ARGUMENT', () => foldNet(net), '1.module.1', 'trackRunningStats: false')
    const folded = foldNet(net, { strict: false })
    expect(classes(folded.modules())).toContain(BatchNorm2d)
    const x = tensor(normal(1, 16), [2, 2, 2, 2])
    expectClose('y', numbers(folded.forward(x)), numbers(net.eval().forward(x)), EXACT)
    const odd = new nn.Sequential(new nn.Conv2d(2, 2, 1), new BatchNorm3d(2))
    expectCode('ERR_ARGUMENT', () => foldNet(odd), '1: fold', 'BatchNorm3d')
  })

  it('leaves classes of one’s own to `copy`, and says so without it', () => {
    class Twice extends Module {
      protected override computeForward(x: Tensor): Tensor {
        return tensor(
          x.toFloat64Array().map((value) => 2 * value),
          x.shape,
        )
      }
      protected override computeBackward(dy: Tensor): Tensor {
        return dy
      }
    }
    class Own extends nn.Conv2d {}
    const net = new nn.Sequential(
      new nn.Linear(2, 2, float64),
      new BatchNorm1d(2, float64),
      new nn.Residual(new Twice()),
    )
    expectCode('ERR_ARGUMENT', () => foldNet(net), '2.module', 'Twice', 'option copy')
    const folded = foldNet(net, { copy: () => new Twice() })
    const x = tensor([1, 2], [1, 2], float64)
    const want = numbers(net.eval().forward(x))
    expectClose('y', numbers(folded.forward(x)), want, random('y', 'float64', want, 10))
    expectCode('ERR_ARGUMENT', () => foldNet(net, { copy: () => null as never }), 'expected a Module')
    // A subclass may do anything in its forward: it is not taken for what it extends.
    const own = new nn.Sequential(new Own(2, 2, 1), new BatchNorm2d(2))
    const kept = foldNet(own, { copy: (module) => module })
    expect([kept.at(0), kept.at(1)!.constructor]).toEqual([own.at(0), BatchNorm2d])
    class OwnNorm extends BatchNorm2d {}
    const normed = new nn.Sequential(new nn.Conv2d(2, 2, 1), new OwnNorm(2))
    expect(foldNet(normed, { copy: (module) => module }).at(1)).toBe(normed.at(1))
    expectCode('ERR_ARGUMENT', () => foldNet(new Tree({ a: new nn.Identity() })), 'Tree')
    expectCode('ERR_ARGUMENT', () => foldNet({} as never), 'net')
  })

  it('copies a single layer', () => {
    const conv = new nn.Conv2d(1, 1, 1)
    const copy = foldNet(conv)
    expect([copy === conv, copy.training, conv.training]).toEqual([false, false, true])
    expectSameBits('weight', copy.weight, conv.weight)
  })
})
