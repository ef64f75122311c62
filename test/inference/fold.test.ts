// Folding a norm into the layer before it: the same outputs as layer and norm in evaluation, for every class that fits, and
// weights that are rounded once.

import { describe, expect, it } from 'vitest'
import {
  BatchNorm1d,
  BatchNorm2d,
  BatchNorm3d,
  BatchNormThroughTime1d,
  BatchNormThroughTime2d,
  fold,
  type Module,
  manualSeed,
  memoryStats,
  NeuNorm,
  type NormLayer,
  nn,
  randperm,
  TemporalEffectiveBatchNorm1d,
  type Tensor,
  ThresholdDependentBatchNorm2d,
  tensor,
} from '../../src/index.js'
import { expectClose, expectCode, expectTensor } from '../support/compare.js'
import {
  createLayer,
  createReference,
  loadRandomState,
  NORM_CLASSES,
  randomInput,
} from '../support/layers.js'
import { expectSameSnapshot, snapshot } from '../support/modules.js'
import { sizeOfShape } from '../support/numbers.js'
import { EXACT, largest, random } from '../support/tolerances.js'

const [T, N, IN, OUT] = [3, 2, 4, 5] as const
const FITTING = NORM_CLASSES.filter(({ spatial }) => spatial < 3)
const float64 = { dtype: 'float64' } as const
/** The least eps there is, which is lost beside a variance of 1. */
const NO_EPS = 2 ** -126

type Type = 'float64' | 'float32'

interface Case {
  dtype: Type
  affine: boolean
  bias: boolean
  stepMode: 's' | 'm'
}

/** Layer and norm with values all different, and an input for T steps. */
function pairOf(kind: (typeof FITTING)[number], { dtype, affine, bias, stepMode }: Case) {
  const norm = createLayer(kind, { channels: OUT, steps: T, stepMode, dtype, affine, eps: 1e-3 })
  loadRandomState(
    norm,
    createReference(kind, { channels: OUT, steps: T, stepMode, dtype, affine }),
    11,
    dtype,
  )
  const layer =
    kind.spatial === 2
      ? new nn.Conv2d(IN, OUT, [3, 2], { stride: [2, 1], padding: [1, 0], bias, stepMode, dtype })
      : new nn.Linear(IN, OUT, { bias, stepMode, dtype })
  const shape = [T, N, IN, ...(kind.spatial === 2 ? [7, 6] : [])]
  const values = randomInput(5, sizeOfShape(shape), dtype, 0.5)
  return { layer, norm, shape, values }
}

/** Outputs for all time steps, in one call or in T. */
function outputs(
  run: (x: Tensor) => Tensor,
  values: Float64Array,
  shape: number[],
  { dtype, stepMode }: Case,
) {
  if (stepMode === 'm') return run(tensor(values, shape, { dtype })).toFloat64Array()
  const size = values.length / T
  const steps = Array.from({ length: T }, (_, t) => {
    const step = tensor(values.slice(t * size, (t + 1) * size), shape.slice(1), { dtype })
    return [...run(step).toFloat64Array()]
  })
  return Float64Array.from(steps.flat())
}

/** Size of the terms of an output before they cancel: factor · (W·x + b, mean) and bias. */
function sizeOfTerms(layer: nn.Conv2d | nn.Linear, norm: NormLayer, values: Float64Array): number {
  const most = (suffix: string, otherwise: number) => {
    const found = Object.entries(norm.stateDict()).filter(([name]) => name.endsWith(suffix))
    return found.length === 0 ? otherwise : largest(...found.map(([, value]) => value.toFloat64Array()))
  }
  const variances = Object.entries(norm.stateDict()).filter(([name]) => name.endsWith('running_var'))
  const least = Math.min(...variances.flatMap(([, value]) => [...value.toFloat64Array()]))
  const scale = most('scale', 1)
  const factor = (scale * most('weight', 1)) / Math.sqrt(least + norm.eps)
  const weight = layer.weight.toFloat64Array().map(Math.abs)
  const perOutput = Array.from({ length: OUT }, (_, c) => {
    const inner = weight.length / OUT
    return weight.slice(c * inner, (c + 1) * inner).reduce((sum, value) => sum + value, 0)
  })
  const before = Math.max(...perOutput) * largest(values) + largest(layer.bias?.toFloat64Array() ?? [])
  return factor * (before + most('running_mean', 0)) + scale * most('bias', 0)
}

describe('fold gives what layer and norm give in evaluation', () => {
  for (const kind of FITTING) {
    for (const stepMode of kind.stepModes) {
      for (const dtype of ['float64', 'float32'] as const) {
        for (const affine of [true, false]) {
          for (const bias of [true, false]) {
            const what = `${affine ? '' : ' without affine'}${bias ? '' : ', no bias before it'}`
            it(`for ${kind.name} in '${stepMode}', ${dtype}${what}`, () => {
              const given = { dtype, affine, bias, stepMode }
              const { layer, norm, shape, values } = pairOf(kind, given)
              const result = fold(layer, norm)
              layer.eval()
              norm.eval()
              const want = outputs((x) => norm.forward(layer.forward(x)), values, shape, given)
              const got = outputs((x) => result.forward(x), values, shape, given)
              expectClose('y', got, want, random('y', dtype, want, sizeOfTerms(layer, norm, values)))
              norm.reset()
              result.reset()
              const again = outputs((x) => result.forward(x), values, shape, given)
              expectClose('after reset()', again, got, EXACT)
            })
          }
        }
      }
    }
  }
})

describe('fold', () => {
  /** A norm of one channel with easy numbers: mean 3, variance 4, weight 5, bias 7. */
  const easy = { running_mean: 3, running_var: 4, weight: 5, bias: 7, num_batches_tracked: 1 }
  const load = (norm: NormLayer, values: Record<string, number | number[]>) => {
    const entries = Object.entries(values).map(([name, value]): [string, Tensor] => {
      const list = [value].flat()
      return [name, tensor(list, name.endsWith('tracked') ? [] : [list.length])]
    })
    norm.loadStateDict(Object.fromEntries(entries))
    return norm
  }
  const linear = () => {
    const layer = new nn.Linear(1, 1, float64)
    layer.loadStateDict({ weight: tensor([2], [1, 1]), bias: tensor([1], [1]) })
    return layer
  }
  const numbers = (module: Module) =>
    Object.fromEntries(Object.entries(module.stateDict()).map(([name, v]) => [name, [...v.toFloat64Array()]]))

  it('computes by hand: 5·(2x + 1 − 3)/√4 + 7 = 5x + 2', () => {
    const norm = load(new BatchNorm1d(1, { eps: NO_EPS, ...float64 }), easy)
    const result = fold(linear(), norm)
    expect(result).toBeInstanceOf(nn.Linear)
    expect(numbers(result)).toEqual({ weight: [5], bias: [2] })
  })

  it('multiplies by the scale of each step for TEBN', () => {
    const norm = new TemporalEffectiveBatchNorm1d(2, 1, { eps: NO_EPS, ...float64 })
    load(norm, { ...easy, scale: [2, -3] })
    const result = fold(linear(), norm)
    expect(result).toBeInstanceOf(nn.PerStep)
    expect(numbers(result)).toEqual({ '0.weight': [10], '0.bias': [4], '1.weight': [-15], '1.bias': [-6] })
  })

  it('multiplies by 0 where weight or scale are 0, and by 1 only where there is none', () => {
    const norm = load(new BatchNorm1d(1, { eps: NO_EPS, ...float64 }), { ...easy, weight: 0 })
    expect(numbers(fold(linear(), norm))).toEqual({ weight: [0], bias: [7] })
    const scaled = new TemporalEffectiveBatchNorm1d(2, 1, { eps: NO_EPS, ...float64 })
    load(scaled, { ...easy, scale: [0, 1] })
    const steps = { '0.weight': [0], '0.bias': [0], '1.weight': [5], '1.bias': [2] }
    expect(numbers(fold(linear(), scaled))).toEqual(steps)
  })

  it('takes statistics and weight of each step for BNTT', () => {
    const norm = new BatchNormThroughTime1d(2, 1, { eps: NO_EPS, ...float64 })
    const { bias, ...first } = easy
    const second = { running_mean: 1, running_var: 16, weight: 4, num_batches_tracked: 2 }
    const named = (at: number, values: object) =>
      Object.entries(values).map(([name, value]) => [`bn_list.${at}.${name}`, value])
    load(norm, Object.fromEntries([...named(0, first), ...named(1, second)]))
    const result = fold(linear(), norm)
    expect(numbers(result)).toEqual({ '0.weight': [5], '0.bias': [-5], '1.weight': [2], '1.bias': [0] })
  })

  it('rounds weights and biases once, from float64', () => {
    const { layer, norm } = pairOf(FITTING[1]!, { dtype: 'float32', affine: true, bias: true, stepMode: 'm' })
    const state = norm.stateDict()
    const read = (name: string) => state[name]!.toFloat64Array()
    const [mean, variance, weight, bias] = ['running_mean', 'running_var', 'weight', 'bias'].map(read)
    const factor = variance!.map((value, c) => weight![c]! / Math.sqrt(value + norm.eps))
    const inner = layer.weight.size / OUT
    const folded = (fold(layer, norm) as nn.Conv2d).stateDict()
    const scaled = layer.weight
      .toFloat64Array()
      .map((value, i) => Math.fround(value * factor[Math.floor(i / inner)]!))
    expectClose('weight', folded.weight!.toFloat64Array(), scaled, EXACT)
    const shifted = layer.bias!.toFloat64Array().map((value, c) => {
      return Math.fround(value * factor[c]! + (bias![c]! - mean![c]! * factor[c]!))
    })
    expectClose('bias', folded.bias!.toFloat64Array(), shifted, EXACT)
    expect([folded.weight!.dtype, folded.bias!.dtype]).toEqual(['float32', 'float32'])
  })

  it('leaves layer, norm, their pending forwards and the random numbers as they are, and shares nothing', () => {
    for (const kind of FITTING) {
      const given = { dtype: 'float64', affine: true, bias: true, stepMode: 'm' } as const
      const { layer, norm, values, shape } = pairOf(kind, given)
      norm.forward(layer.forward(tensor(values, shape)))
      const before = [layer, norm].map(snapshot)
      manualSeed(5)
      const result = fold(layer, norm)
      const drawn = randperm(100)
      manualSeed(5)
      expect(randperm(100)).toEqual(drawn)
      for (const [i, module] of [layer, norm].entries()) {
        expectSameSnapshot(module.constructor.name, snapshot(module), before[i]!)
      }
      expect(result.modules().some(({ training }) => training)).toBe(false)
      const was = result.forward(tensor(values, shape)).toFloat64Array()
      result.reset()
      for (const value of [...layer.parameters(), ...norm.parameters()]) value.dispose()
      expectClose('y', result.forward(tensor(values, shape)).toFloat64Array(), was, EXACT)
      expect(result.pendingForwards).toBe(0)
    }
  })

  it('keeps the geometry of a convolution', () => {
    const conv = new nn.Conv2d(2, 3, [3, 2], { stride: [2, 1], padding: [1, 0], stepMode: 'm' })
    const result = fold(conv, new ThresholdDependentBatchNorm2d(1, 1, 3)) as nn.Conv2d
    const geometry = ({ inChannels, outChannels, kernelSize, stride, padding, stepMode }: nn.Conv2d) => [
      inChannels,
      outChannels,
      kernelSize,
      stride,
      padding,
      stepMode,
    ]
    expect(geometry(result)).toEqual(geometry(conv))
  })

  it('needs no reset() between sequences for TEBN, and one for BNTT, past whose T it throws ERR_TIME_STEP', () => {
    const x = tensor(randomInput(1, T * N * IN, 'float64'), [T, N, IN])
    const options = { stepMode: 'm', ...float64 } as const
    const tebn = fold(new nn.Linear(IN, OUT, options), new TemporalEffectiveBatchNorm1d(T, OUT, float64))
    const first = tebn.forward(x).toFloat64Array()
    expectClose('second call', tebn.forward(x).toFloat64Array(), first, EXACT)
    expectCode('ERR_TIME_STEP', () => tebn.forward(x.reshape([1, T * N, IN])), 'T = 3', 'got 1')
    const bntt = fold(new nn.Linear(IN, OUT, options), new BatchNormThroughTime1d(T, OUT, options))
    bntt.forward(x)
    expectCode('ERR_TIME_STEP', () => bntt.forward(x), 'reset()')
    bntt.reset()
    bntt.forward(x)
  })

  it('uses running statistics that training no longer moves, as evaluation does', () => {
    const norm = new BatchNorm1d(1, float64)
    norm.trackRunningStats = false
    const result = fold(linear(), norm)
    const x = tensor([1, 2], [2, 1], float64)
    const want = norm.eval().forward(linear().forward(x))
    expectTensor(
      'y',
      result.forward(x),
      { shape: [2, 1], values: want.toFloat64Array() },
      random('y', 'float64', want.toFloat64Array(), 10),
    )
  })

  it('takes channels last behind a linear layer, whose outputs are the last axis', () => {
    const kind = FITTING[0]!
    const given = { channels: OUT, steps: T, stepMode: 's', channelsLast: true, ...float64 } as const
    const norm = createLayer(kind, given)
    loadRandomState(norm, createReference(kind, given), 11, 'float64')
    const layer = new nn.Linear(IN, OUT, float64)
    const x = tensor(randomInput(3, N * 7 * IN, 'float64'), [N, 7, IN])
    const want = norm.eval().forward(layer.forward(x)).toFloat64Array()
    const scale = sizeOfTerms(layer, norm, x.toFloat64Array())
    const got = fold(layer, norm).forward(x)
    expectTensor('y', got, { shape: [N, 7, OUT], values: want }, random('y', 'float64', want, scale))
  })

  it('keeps no memory of an inference loop', () => {
    const norm = new BatchNormThroughTime2d(T, OUT, { stepMode: 'm' })
    const result = fold(new nn.Conv2d(IN, OUT, 3, { stepMode: 'm' }), norm)
    const x = tensor(randomInput(1, T * N * IN * 64, 'float32'), [T, N, IN, 8, 8], { dtype: 'float32' })
    const run = () => {
      result.forward(x).dispose()
      result.reset()
    }
    run()
    const before = memoryStats().allocated
    for (let i = 0; i < 20; i++) run()
    expect(memoryStats().allocated).toBeLessThanOrEqual(before)
  })
})

describe('fold refuses, saying why', () => {
  const conv = () => new nn.Conv2d(2, 3, 1)
  const linear = () => new nn.Linear(2, 3)
  const cases: [string, string, () => unknown, (string | RegExp)[]][] = [
    [
      'a 1d norm after a convolution',
      'ERR_ARGUMENT',
      () => fold(conv(), new BatchNorm1d(3)),
      ['BatchNorm2d', 'BatchNorm1d'],
    ],
    [
      'a 2d norm after a linear layer',
      'ERR_ARGUMENT',
      () => fold(linear(), new BatchNorm2d(3)),
      ['[N, C]', 'BatchNorm2d'],
    ],
    ['a 3d norm', 'ERR_ARGUMENT', () => fold(conv(), new BatchNorm3d(3)), ['BatchNorm3d']],
    ['NeuNorm', 'ERR_ARGUMENT', () => fold(conv(), new NeuNorm(3, 2, 2) as never), ['NeuNorm', 'state']],
    [
      'another number of channels',
      'ERR_ARGUMENT',
      () => fold(conv(), new BatchNorm2d(4)),
      ['4 features', '3 outputs'],
    ],
    [
      'channels last after a convolution',
      'ERR_ARGUMENT',
      () => fold(conv(), new BatchNorm2d(3, { channelsLast: true })),
      ['[N, H, W, C]', 'channelsLast'],
    ],
    [
      'a norm without running statistics',
      'ERR_ARGUMENT',
      () => fold(conv(), new BatchNorm2d(3, { trackRunningStats: false })),
      ['trackRunningStats: false', 'each batch'],
    ],
    [
      'a per-step norm without running statistics',
      'ERR_ARGUMENT',
      () => fold(linear(), new BatchNormThroughTime1d(2, 3, { trackRunningStats: false })),
      ['trackRunningStats: false'],
    ],
    [
      'the wrong way round',
      'ERR_ARGUMENT',
      () => fold(new BatchNorm2d(3) as never, conv() as never),
      ['layer', 'BatchNorm2d'],
    ],
    ['two layers', 'ERR_ARGUMENT', () => fold(conv(), linear() as never), ['norm', 'Linear']],
    ['nothing', 'ERR_ARGUMENT', () => fold(undefined as never, undefined as never), ['layer', 'undefined']],
    ['no norm', 'ERR_ARGUMENT', () => fold(conv(), null as never), ['norm', 'null']],
    [
      'step modes that do not fit',
      'ERR_STEP_MODE',
      () => fold(conv(), new ThresholdDependentBatchNorm2d(1, 1, 3)),
      ["'s'", "'m'", 'set both alike'],
    ],
    [
      'dtypes that do not fit',
      'ERR_DTYPE',
      () => fold(conv(), new BatchNorm2d(3, float64)),
      ['float32', 'float64'],
    ],
  ]
  for (const [what, code, call, words] of cases) {
    it(what, () => {
      expectCode(code, call, 'fold', ...words)
    })
  }

  it('but takes a linear layer in either mode, which is the same in both', () => {
    const layer = new nn.Linear(2, 3)
    for (const norm of [
      new BatchNorm1d(3, { stepMode: 'm' }),
      new BatchNormThroughTime1d(2, 3, { stepMode: 'm' }),
    ])
      expect(fold(layer, norm).stepMode).toBe('m')
  })
})
