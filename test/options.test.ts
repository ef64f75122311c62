// Options are honoured or refused: one helper reads them for every constructor and function.
import { describe, expect, it } from 'vitest'
import {
  BatchNorm2d,
  BatchNormThroughTime2d,
  NeuNorm,
  nn,
  ones,
  optim,
  SpikenormError,
  tensor,
} from '../src/index.js'
import { type Callable, exported, invoke } from './support/exported.js'

const parameters = () => new nn.Linear(1, 1).parameters()

function messageOf(call: () => unknown): string {
  try {
    call()
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(SpikenormError)
    expect((thrown as SpikenormError).code).toBe('ERR_ARGUMENT')
    return (thrown as Error).message
  }
  throw new Error('nothing was thrown')
}

const untyped = <T>(value: T) => value as never

describe('what is written for Python says how it is written here', () => {
  const cases: [what: string, call: () => unknown, ...said: string[]][] = [
    ['Python spelling', () => new BatchNorm2d(3, untyped({ step_mode: 'm' })), "'step_mode'", 'stepMode?'],
    ['a slip', () => new BatchNorm2d(3, untyped({ momentun: 0.2 })), 'momentum?'],
    ['another case', () => new BatchNorm2d(3, untyped({ stepmode: 'm' })), 'stepMode?'],
    [
      'track_running_stats',
      () => new BatchNorm2d(3, untyped({ track_running_stats: false })),
      'trackRunningStats?',
    ],
    [
      'num_features',
      () => new BatchNorm2d(3, untyped({ num_features: 3 })),
      'new BatchNorm2d(numFeatures, options)',
    ],
    ['groups', () => new nn.Conv2d(4, 4, 3, untyped({ groups: 4 })), "'groups' is not supported"],
    ['padding_mode', () => new nn.Conv2d(4, 4, 3, untyped({ padding_mode: 'zeros' })), 'not supported'],
    ['ceil_mode', () => new nn.MaxPool2d(2, untyped({ ceil_mode: true })), 'not supported'],
    ['v_threshold', () => new nn.LIFNode(untyped({ v_threshold: 0.5 })), 'vThreshold?'],
    ['surrogate_function', () => new nn.IFNode(untyped({ surrogate_function: 'atan' })), 'surrogate?'],
    ['learningRate', () => new optim.Adam(parameters(), untyped({ learningRate: 1 })), 'lr?'],
    ['weight_decay', () => new optim.SGD(parameters(), untyped({ weight_decay: 1 })), 'weightDecay?'],
    ['stride in its place', () => Reflect.construct(nn.Conv2d, [1, 4, 3, 2, 1]), '{ stride: 2, padding: 1 }'],
    [
      'bias in its place',
      () => new nn.Linear(2, 2, untyped(false)),
      'new Linear(inFeatures, outFeatures, { bias: false })',
    ],
    ['lr in its place', () => new optim.Adam(parameters(), untyped(0.1)), '{ lr: 0.1 }'],
    ['eps in its place', () => new BatchNorm2d(3, untyped(1e-4)), '{ eps: 0.0001 }'],
    [
      'a dtype in its place',
      () => tensor([1], [1], untyped('float64')),
      "tensor(data, shape, { dtype: 'float64' })",
    ],
    ['a dtype behind a shape', () => ones([1], untyped('int64')), "ones(shape, { dtype: 'int64' })"],
    ['k in its place', () => new NeuNorm(1, 1, 1, untyped(0.5)), '{ k: 0.5 }'],
    ['tau in its place', () => new nn.LIFNode(untyped(2)), 'new LIFNode({ tau: 2 })'],
    [
      'too few',
      () => Reflect.construct(BatchNorm2d, []),
      'numFeatures: it is missing',
      'new BatchNorm2d(numFeatures',
    ],
    [
      'options in the place of the last argument',
      () => Reflect.construct(BatchNormThroughTime2d, [64, { stepMode: 'm' }]),
      'numFeatures: it is missing, got { stepMode }; write new BatchNormThroughTime2d(T, numFeatures, options)',
    ],
    [
      'something behind the options',
      () => Reflect.construct(BatchNorm2d, [3, {}, 1]),
      'at most 2 arguments',
      'got 3',
    ],
  ]
  for (const [what, call, ...said] of cases) {
    it(what, () => {
      const message = messageOf(call)
      for (const words of said) expect(message).toContain(words)
    })
  }
})

describe('what is no options object is refused', () => {
  class Options {
    eps = 1
  }
  const values = [null, 1, 'm', true, [], () => {}, Options, new Options(), new Map(), Symbol('x'), 3n]
  for (const value of values) {
    it(`${String(value)} (${typeof value})`, () => {
      expect(messageOf(() => new BatchNorm2d(3, value as never))).toContain('options: expected an object')
    })
  }
})

describe('values without their names', () => {
  it('are shown under a name that takes them', () => {
    const refused = (value: unknown) => messageOf(() => new BatchNorm2d(3, value as never))
    expect(refused(0.5)).toContain('{ eps: 0.5 }')
    expect(refused('m')).toContain("{ stepMode: 'm' }")
    expect(refused('bad')).toContain('write new BatchNorm2d(numFeatures, options)')
    expect(refused(null)).toContain('write new BatchNorm2d(numFeatures, options)')
  })
})

describe('values of options', () => {
  it('undefined counts as absent', () => {
    const norm = new BatchNorm2d(3, untyped({ eps: undefined, momentum: undefined, groups: undefined }))
    expect([norm.eps, norm.momentum]).toEqual([1e-5, 0.1])
  })

  it('null is allowed where it means something, and nowhere else', () => {
    expect(new BatchNorm2d(3, { momentum: null }).momentum).toBeNull()
    expect(new nn.LIFNode({ vReset: null }).vReset).toBeNull()
    expect(messageOf(() => new BatchNorm2d(3, untyped({ eps: null })))).toContain('got null')
    expect(messageOf(() => new nn.LIFNode(untyped({ tau: null })))).toContain('got null')
  })

  it('a flag is true or false', () => {
    expect(messageOf(() => new nn.Linear(1, 1, untyped({ bias: 'no' })))).toContain(
      "bias: expected true or false, got 'no'",
    )
    expect(messageOf(() => new BatchNorm2d(3, untyped({ affine: 0 })))).toContain('got 0')
  })

  it('each is read once', () => {
    let reads = 0
    const options = {
      get eps() {
        return reads++ === 0 ? 0.5 : Number.NaN
      },
    }
    expect(new BatchNorm2d(3, options).eps).toBe(0.5)
  })

  it('eps of a norm is not negative, nor so small that a constant channel divides by 0', () => {
    for (const eps of [1e-300, -1, Number.NaN, Number.POSITIVE_INFINITY, '1e-5']) {
      expect(messageOf(() => new BatchNorm2d(3, { eps: eps as never }))).toContain(
        'eps: expected 0 or a finite number >= 2^-126',
      )
    }
  })

  it('options without a prototype and of another realm are taken', async () => {
    const { runInNewContext } = await import('node:vm')
    expect(new BatchNorm2d(3, Object.assign(Object.create(null), { eps: 0.5 })).eps).toBe(0.5)
    expect(new BatchNorm2d(3, runInNewContext('({ eps: 0.5 })')).eps).toBe(0.5)
  })
})

it('a class of a user may take more arguments of its own', () => {
  class Named extends BatchNorm2d {
    constructor(
      numFeatures: number,
      options: object,
      readonly label: string,
    ) {
      super(numFeatures, options)
    }
  }
  expect(new Named(3, { eps: 0.5 }, 'first').label).toBe('first')
})

describe('every export that takes options', () => {
  const linear = () => new nn.Linear(3, 2)
  /** Arguments before the options, and an option as Python spells it. */
  const TAKES_OPTIONS: Record<string, [leading: () => unknown[], snakeCase: string]> = {
    BatchNorm1d: [() => [3], 'track_running_stats'],
    BatchNorm2d: [() => [3], 'track_running_stats'],
    BatchNorm3d: [() => [3], 'step_mode'],
    BatchNormThroughTime1d: [() => [2, 3], 'step_mode'],
    BatchNormThroughTime2d: [() => [2, 3], 'step_mode'],
    BatchNormThroughTime3d: [() => [2, 3], 'step_mode'],
    TemporalEffectiveBatchNorm1d: [() => [2, 3], 'step_mode'],
    TemporalEffectiveBatchNorm2d: [() => [2, 3], 'step_mode'],
    TemporalEffectiveBatchNorm3d: [() => [2, 3], 'step_mode'],
    ThresholdDependentBatchNorm1d: [() => [1, 1, 3], 'step_mode'],
    ThresholdDependentBatchNorm2d: [() => [1, 1, 3], 'step_mode'],
    ThresholdDependentBatchNorm3d: [() => [1, 1, 3], 'step_mode'],
    NeuNorm: [() => [3, 2, 2], 'shared_across_channels'],
    'nn.Conv2d': [() => [3, 2, 1], 'step_mode'],
    'nn.Linear': [() => [3, 2], 'step_mode'],
    'nn.AvgPool2d': [() => [2], 'step_mode'],
    'nn.MaxPool2d': [() => [2], 'step_mode'],
    'nn.Flatten': [() => [], 'step_mode'],
    'nn.IFNode': [() => [], 'v_threshold'],
    'nn.LIFNode': [() => [], 'decay_input'],
    'nn.PerStep': [() => [[linear()]], 'step_mode'],
    'optim.SGD': [() => [linear().parameters()], 'weight_decay'],
    'optim.Adam': [() => [linear().parameters()], 'weight_decay'],
    'optim.AdamW': [() => [linear().parameters()], 'weight_decay'],
    'optim.CosineAnnealingLR': [() => [new optim.SGD(linear().parameters())], 'eta_min'],
    'cuda.graph': [() => [() => 1], 'Device'],
    foldNet: [() => [new nn.Sequential()], 'Strict'],
    full: [() => [[1], 1], 'd_type'],
    loadPyTorch: [() => ['no-such-file'], 'skip_unsupported'],
    loadPyTorchCheckpoint: [() => ['no-such-file'], 'skip_unsupported'],
    loadSafetensors: [() => ['no-such-file'], 'skip_unsupported'],
    ones: [() => [[1]], 'd_type'],
    saveSafetensors: [() => ['no-such-folder/file', {}], 'meta_data'],
    tensor: [() => [[1], [1]], 'd_type'],
    zeros: [() => [[1]], 'd_type'],
  }
  const TAKES_NONE = [
    ...[
      'CudaGraph',
      'Module',
      'NormLayer',
      'Parameter',
      'SpikenormError',
      'Tensor',
      'cuda.Event',
      'nn.Identity',
    ],
    ...[
      'nn.LossAndGrad',
      'nn.Residual',
      'nn.Sequential',
      'nn.crossEntropy',
      'optim.Optimizer',
      'cuda.devices',
    ],
    ...[
      'cuda.isAvailable',
      'cuda.stream',
      'cuda.synchronize',
      'cuda.unavailableReason',
      'emptyCache',
      'enableGrad',
    ],
    ...['fold', 'functional.detachNet', 'functional.resetNet', 'functional.setStepMode', 'getNumThreads'],
    ...['manualSeed', 'memoryStats', 'noGrad', 'randperm', 'setNumThreads', 'loadSafetensorsMetadata'],
  ]

  it('is in this table, or is known to take none', () => {
    const names = exported().map(([name]) => name)
    expect(names.filter((name) => !(name in TAKES_OPTIONS) && !TAKES_NONE.includes(name))).toEqual([])
    expect([...Object.keys(TAKES_OPTIONS), ...TAKES_NONE].filter((name) => !names.includes(name))).toEqual([])
  })

  for (const [name, [leading, snakeCase]] of Object.entries(TAKES_OPTIONS)) {
    const [, value] = exported().find(([other]) => other === name) ?? []
    const refused = (...rest: unknown[]) =>
      messageOf(() => invoke(value as Callable, [...leading(), ...rest]))

    it(`${name} refuses options that it does not know`, () => {
      expect(refused({ nonesuch: 1 })).toContain("'nonesuch'")
      expect(refused({ [snakeCase]: undefined, [`${snakeCase}_`]: 1 })).toContain('did you mean')
      expect(refused({ [snakeCase]: 1 })).toContain('did you mean')
      expect(refused(JSON.parse('{ "__proto__": 1 }'))).toContain("'__proto__'")
      expect(refused({ constructor: 1 })).toContain("'constructor'")
    })

    it(`${name} refuses what is no options object, and what is behind it`, () => {
      for (const wrong of [null, [], new Map(), () => {}]) expect(refused(wrong)).toContain('options')
      if (name !== 'tensor') for (const wrong of ['m', true]) expect(refused(wrong)).toContain('options')
      if (name !== 'ones' && name !== 'zeros') expect(refused({}, {})).toContain('arguments')
    })
  }
})
