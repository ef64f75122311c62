// Every error the library makes has its code, names the layer and the argument, and leaves no trace: a module that
// saw failing calls between its real ones ends with the bits of a twin that saw none.

import { describe, expect, it } from 'vitest'
import {
  BatchNorm1d,
  BatchNorm2d,
  BatchNormThroughTime2d,
  cuda,
  enableGrad,
  functional,
  type Module,
  manualSeed,
  NeuNorm,
  noGrad,
  randperm,
  SpikenormError,
  setNumThreads,
  TemporalEffectiveBatchNorm2d,
  type Tensor,
  ThresholdDependentBatchNorm2d,
  tensor,
  zeros,
} from '../src/index.js'
import { expectCode, expectSameBits } from './support/compare.js'
import { expectSameSnapshot, snapshot, Tree } from './support/modules.js'
import { normal, sizeOfShape } from './support/numbers.js'

type Failing = [code: string, what: string, call: (module: Module) => unknown, ...words: (string | RegExp)[]]

const input = (shape: number[], seed = 1, dtype: 'float32' | 'float64' | 'int64' = 'float32') =>
  tensor(normal(seed, sizeOfShape(shape)), shape, { dtype })

function disposed(shape: number[]): Tensor {
  const value = input(shape)
  // Its shape has been asked for, so that it is known without the native side.
  expect(value.shape).toEqual(shape)
  value.dispose()
  return value
}

/** Calls that fail on any layer that takes inputs of `shape`; `[5, …]` more than its axes are too many. */
function alwaysFailing(shape: number[]): Failing[] {
  const entry = (module: Module) => Object.entries(module.stateDict())
  const load = (module: Module, change: (dict: Record<string, Tensor>) => void) => {
    const dict = Object.fromEntries(entry(module).map(([name, value]) => [name, input([...value.shape], 99)]))
    change(dict)
    module.loadStateDict(dict)
  }
  const last = (module: Module) => entry(module).at(-1)![0]
  return [
    [
      'ERR_SHAPE',
      'forward with an axis too many',
      (m) => m.forward(input([2, ...shape])),
      'input',
      'expected',
    ],
    ['ERR_SHAPE', 'forward with no axes', (m) => m.forward(input([])), 'input'],
    ['ERR_DTYPE', 'forward with integers', (m) => m.forward(input(shape, 1, 'int64')), 'int64'],
    ['ERR_DTYPE', 'forward with the wrong floats', (m) => m.forward(input(shape, 1, 'float64')), 'float64'],
    ['ERR_DISPOSED', 'forward with a disposed tensor', (m) => m.forward(disposed(shape))],
    ['ERR_ARGUMENT', 'forward with an array', (m) => m.forward([1, 2] as never)],
    ['ERR_ARGUMENT', 'forward with nothing', (m) => m.forward(undefined as never)],
    ['ERR_STEP_MODE', 'an unknown step mode', (m) => functional.setStepMode(m, 'x' as never), "'x'"],
    ['ERR_STEP_MODE', 'an unknown step mode, set', (m) => Object.assign(m, { stepMode: 'multi' })],
    ['ERR_DTYPE', 'to an integer type', (m) => m.to('int64'), 'int64'],
    ['ERR_DEVICE', 'to an unknown device', (m) => m.to('gpu' as never), 'gpu'],
    [
      'ERR_STATE_DICT',
      'a state dict without a key',
      (m) => load(m, (dict) => delete dict[entry(m)[0]![0]]),
      /missing/i,
    ],
    [
      'ERR_STATE_DICT',
      'a state dict with a key too many',
      (m) => load(m, (d) => Object.assign(d, { gamma: input([3]) })),
      'gamma',
    ],
    [
      'ERR_STATE_DICT',
      'a state dict with a wrong shape',
      (m) => load(m, (d) => Object.assign(d, { [last(m)]: input([7, 7]) })),
      /\[7, 7\]/,
    ],
    [
      'ERR_STATE_DICT',
      'a lenient state dict with a wrong shape',
      (m) =>
        m.loadStateDict({ [entry(m)[0]![0]]: entry(m)[0]![1], [last(m)]: input([7, 7]) }, { strict: false }),
    ],
    [
      'ERR_STATE_DICT',
      'a state dict with a number',
      (m) => load(m, (d) => Object.assign(d, { [last(m)]: 3 })),
    ],
    [
      'ERR_DISPOSED',
      'a state dict with a disposed tensor',
      (m) => load(m, (d) => Object.assign(d, { [last(m)]: disposed([...entry(m).at(-1)![1].shape]) })),
    ],
  ]
}

/** Calls that fail while a forward of an output of `shape` is pending. */
function failingWhilePending(shape: number[]): Failing[] {
  return [
    ['ERR_SHAPE', 'backward with another shape', (m) => m.backward(input([...shape, 1])), 'dy'],
    ['ERR_SHAPE', 'backward with as many values', (m) => m.backward(input([sizeOfShape(shape)])), 'dy'],
    [
      'ERR_DTYPE',
      'backward with another dtype',
      (m) => m.backward(input(shape, 1, 'float64')),
      'dy',
      'float64',
    ],
    ['ERR_DISPOSED', 'backward with a disposed tensor', (m) => m.backward(disposed(shape))],
    ['ERR_ARGUMENT', 'backward with nothing', (m) => m.backward(undefined as never)],
    ['ERR_ARGUMENT', 'to another dtype', (m) => m.to('float64'), 'pending'],
  ]
}

const withoutForward: Failing = [
  'ERR_NO_FORWARD',
  'backward without a forward',
  (m) => m.backward(input([1])),
  'backward',
]

interface Subject {
  name: string
  create: () => Module
  /** Of every input; two of them are run. */
  shape: number[]
  failing: Failing[]
}

const SUBJECTS: Subject[] = [
  {
    name: 'BatchNorm2d',
    create: () => new BatchNorm2d(3),
    shape: [2, 3, 2, 2],
    failing: [
      [
        'ERR_SHAPE',
        'another number of channels',
        (m) => m.forward(input([2, 4, 2, 2])),
        'numFeatures = 3',
        'got 4',
      ],
      [
        'ERR_BATCH_STATISTICS',
        'one value per channel',
        (m) => m.forward(input([1, 3, 1, 1])),
        'more than 1 value',
      ],
      ['ERR_BATCH_STATISTICS', 'an empty batch', (m) => m.forward(input([0, 3, 2, 2]))],
      [
        'ERR_ARGUMENT',
        'a momentum that is no number',
        (m) => Object.assign(m, { momentum: Number.NaN }),
        'momentum',
      ],
    ],
  },
  {
    name: 'ThresholdDependentBatchNorm2d',
    create: () => new ThresholdDependentBatchNorm2d(0.5, 1.5, 3),
    shape: [2, 2, 3, 2, 2],
    failing: [
      ['ERR_STEP_MODE', 'single steps', (m) => functional.setStepMode(m, 's'), "'m'", "'s'"],
      ['ERR_SHAPE', 'a single step', (m) => m.forward(input([2, 3, 2, 2])), 'T, N, C, H, W'],
      ['ERR_BATCH_STATISTICS', 'one value per channel', (m) => m.forward(input([1, 1, 3, 1, 1]))],
    ],
  },
  {
    name: 'TemporalEffectiveBatchNorm2d',
    create: () => new TemporalEffectiveBatchNorm2d(2, 3),
    shape: [2, 2, 3, 2, 2],
    failing: [
      ['ERR_TIME_STEP', 'fewer steps', (m) => m.forward(input([1, 2, 3, 2, 2])), 'T = 2', 'got 1'],
      ['ERR_TIME_STEP', 'more steps', (m) => m.forward(input([3, 2, 3, 2, 2])), 'got 3'],
      ['ERR_STEP_MODE', 'single steps', (m) => Object.assign(m, { stepMode: 's' })],
    ],
  },
  {
    name: 'BatchNormThroughTime2d',
    // Two steps to spare, so that the time step is not what every call fails at.
    create: () => new BatchNormThroughTime2d(6, 3, { stepMode: 'm' }),
    shape: [2, 2, 3, 2, 2],
    failing: [
      [
        'ERR_TIME_STEP',
        'a call that reaches past T',
        (m) => m.forward(input([7, 2, 3, 2, 2])),
        'T = 6',
        /reset/,
      ],
      ['ERR_SHAPE', 'no time steps', (m) => m.forward(input([0, 2, 3, 2, 2])), 'time step'],
      ['ERR_BATCH_STATISTICS', 'one value per channel and step', (m) => m.forward(input([2, 1, 3, 1, 1]))],
    ],
  },
  {
    name: 'NeuNorm',
    create: () => {
      manualSeed(3)
      return new NeuNorm(3, 2, 2, { stepMode: 'm' })
    },
    shape: [2, 2, 3, 2, 2],
    failing: [
      ['ERR_SHAPE', 'another number of channels', (m) => m.forward(input([2, 2, 4, 2, 2]))],
      ['ERR_SHAPE', 'another height', (m) => m.forward(input([2, 2, 3, 3, 2]))],
      ['ERR_SHAPE', 'no time steps', (m) => m.forward(input([0, 2, 3, 2, 2])), 'time step'],
    ],
  },
]

describe('a call that throws', () => {
  for (const { name, create, shape, failing } of SUBJECTS) {
    /** Two forwards and their backwards, with `between` before, among and after them. */
    const life = (between: (module: Module, pending: number) => void) => {
      const module = create()
      const results: Tensor[] = []
      const calls = [
        () => module.forward(input(shape, 5)),
        () => module.forward(input(shape, 6)),
        () => module.backward(input(shape, 7)),
        () => module.backward(input(shape, 8)),
      ]
      for (const call of calls) {
        between(module, module.pendingForwards)
        results.push(call())
      }
      between(module, 0)
      return { results, end: snapshot(module) }
    }

    const cases: Failing[] = [
      ...alwaysFailing(shape),
      ...failing,
      ...failingWhilePending(shape),
      withoutForward,
    ]
    const needs = (which: Failing) =>
      which === withoutForward
        ? 'none'
        : failingWhilePending(shape).some(([, what]) => what === which[1])
          ? 'some'
          : 'any'

    for (const which of cases) {
      const [code, what, call, ...words] = which
      it(`${code} leaves no trace in ${name}: ${what}`, () => {
        let thrown = 0
        const { results, end } = life((module, pending) => {
          if (needs(which) === (pending > 0 ? 'none' : 'some')) return
          const before = snapshot(module)
          expectCode(code, () => call(module), ...words)
          expectSameSnapshot(what, snapshot(module), before)
          thrown++
        })
        expect(thrown).toBeGreaterThan(0)
        const twin = life(() => {})
        results.forEach((value, i) => {
          expectSameBits(`result ${i}`, value, twin.results[i]!)
        })
        expectSameSnapshot('in the end', end, twin.end)
      })
    }

    it(`in ${name} names the layer`, () => {
      const module = create()
      for (const [, , call] of [...failing, alwaysFailing(shape)[0]!, withoutForward]) {
        let message = ''
        try {
          call(module)
        } catch (error) {
          message = (error as Error).message
        }
        expect(message).toMatch(new RegExp(`^${name}: `))
      }
    })
  }
})

describe('states that only some calls can be refused in', () => {
  it('ERR_TIME_STEP of a single step past T does not move the step index of BNTT', () => {
    const layer = new BatchNormThroughTime2d(2, 3)
    const x = input([2, 3, 2, 2])
    layer.forward(x)
    layer.forward(x)
    for (let i = 0; i < 3; i++) expectCode('ERR_TIME_STEP', () => layer.forward(x))
    expect(layer.pendingForwards).toBe(2)
    layer.reset()
    layer.forward(x)
    expect(layer.stateDict()['bn_list.0.num_batches_tracked']!.item()).toBe(2)
    layer.stepMode = 'm'
    expectCode('ERR_TIME_STEP', () => layer.forward(input([2, 2, 3, 2, 2])))
    layer.forward(input([1, 2, 3, 2, 2]))
    expect(layer.stateDict()['bn_list.1.num_batches_tracked']!.item()).toBe(2)
  })

  it('ERR_SHAPE of another batch keeps the state of NeuNorm, and reset() allows it', () => {
    const run = (fail: boolean) => {
      manualSeed(1)
      const layer = new NeuNorm(3, 2, 2)
      layer.forward(input([2, 3, 2, 2], 1))
      if (fail) expectCode('ERR_SHAPE', () => layer.forward(input([4, 3, 2, 2])), 'NeuNorm', 'batch', 'reset')
      return [layer, layer.forward(input([2, 3, 2, 2], 2))] as const
    }
    const [layer, y] = run(true)
    expectSameBits('y', y, run(false)[1])
    layer.reset()
    expect(layer.forward(input([4, 3, 2, 2])).shape).toEqual([4, 3, 2, 2])
  })

  it('ERR_BATCH_STATISTICS in eval too where there are no running statistics', () => {
    const layer = new BatchNorm1d(3, { trackRunningStats: false }).eval()
    expectCode('ERR_BATCH_STATISTICS', () => layer.forward(input([1, 3])), 'BatchNorm1d')
    const tracked = new BatchNorm1d(3).eval()
    expect(tracked.forward(input([1, 3])).shape).toEqual([1, 3])
  })

  it('ERR_STEP_MODE changes the mode of no module in the tree, in whatever order they stand', () => {
    const make = () => [
      new BatchNorm2d(3),
      new NeuNorm(3, 2, 2),
      new BatchNormThroughTime2d(2, 3, { stepMode: 'm' }),
    ]
    const inner = (modules: Module[]) =>
      new Tree(Object.fromEntries(modules.map((module, i) => [`${i}`, module])))
    for (const at of [0, 1, 3]) {
      const modules: Module[] = make()
      modules.splice(at, 0, new ThresholdDependentBatchNorm2d(1, 1, 3))
      const net = new Tree({ first: new BatchNorm2d(3), body: inner(modules) })
      const before = snapshot(net)
      expectCode('ERR_STEP_MODE', () => functional.setStepMode(net, 's'), 'ThresholdDependentBatchNorm2d')
      expectSameSnapshot('modes', snapshot(net), before)
      functional.setStepMode(net, 'm')
      expect(net.modules().map(({ stepMode }) => stepMode)).toEqual(net.modules().map(() => 'm'))
    }
  })

  it('ERR_STATE_DICT in one module of a tree writes to none of it', () => {
    const net = new Tree({ a: new BatchNorm2d(3), b: new BatchNorm2d(3) })
    const dict = Object.fromEntries(
      Object.entries(net.stateDict()).map(([name, value]) => [name, input([...value.shape], 4)]),
    )
    const before = snapshot(net)
    dict['b.running_var'] = input([4])
    expectCode('ERR_STATE_DICT', () => net.loadStateDict(dict), /b\.running_var/)
    expectSameSnapshot('state', snapshot(net), before)
  })

  it('ERR_ARGUMENT of to() on a tree with a pending forward converts no part of it', () => {
    const net = new Tree({ a: new BatchNorm2d(3), b: new BatchNorm2d(3) })
    net.parts.b!.forward(input([2, 3, 2, 2]))
    expectCode('ERR_ARGUMENT', () => net.to('float64'), 'pending')
    expect(net.parameters().map(({ dtype }) => dtype)).toEqual(Array(4).fill('float32'))
  })

  it('ERR_DISPOSED answers whatever a disposed module is asked to compute', () => {
    const layer = new BatchNorm2d(3)
    layer.forward(input([2, 3, 2, 2]))
    layer.dispose()
    layer.dispose()
    expectCode('ERR_DISPOSED', () => layer.forward(input([2, 3, 2, 2])))
    expectCode('ERR_DISPOSED', () => layer.stateDict())
    expectCode('ERR_DISPOSED', () => layer.backward(input([2, 3, 2, 2])))
  })
})

describe('constructors and functions', () => {
  const refused: [string, string, () => unknown, ...(string | RegExp)[]][] = [
    ['ERR_ARGUMENT', 'no features', () => new BatchNorm2d(0), 'BatchNorm2d', 'numFeatures', 'got 0'],
    ['ERR_ARGUMENT', 'negative features', () => new BatchNorm2d(-3), 'numFeatures', 'got -3'],
    ['ERR_ARGUMENT', 'half a feature', () => new BatchNorm2d(2.5), 'numFeatures', 'got 2.5'],
    ['ERR_ARGUMENT', 'features as text', () => new BatchNorm2d('3' as never), 'numFeatures'],
    ['ERR_ARGUMENT', 'features not given', () => new BatchNorm2d(undefined as never), 'numFeatures'],
    ['ERR_ARGUMENT', 'a negative eps', () => new BatchNorm2d(3, { eps: -1 }), 'eps', 'got -1'],
    ['ERR_ARGUMENT', 'an eps that is no number', () => new BatchNorm2d(3, { eps: Number.NaN }), 'eps'],
    [
      'ERR_ARGUMENT',
      'a momentum as text',
      () => new BatchNorm2d(3, { momentum: '0.1' as never }),
      'momentum',
    ],
    ['ERR_STEP_MODE', 'a step mode', () => new BatchNorm2d(3, { stepMode: 'both' as never }), 'both'],
    ['ERR_STEP_MODE', 'single steps', () => new TemporalEffectiveBatchNorm2d(2, 3, { stepMode: 's' }), "'s'"],
    ['ERR_DTYPE', 'an unknown dtype', () => new BatchNorm2d(3, { dtype: 'float8' as never }), 'float8'],
    ['ERR_DTYPE', 'an integer dtype', () => new NeuNorm(3, 2, 2, { dtype: 'int64' }), 'int64'],
    ['ERR_DEVICE', 'an unknown device', () => new BatchNorm2d(3, { device: 'tpu' as never }), 'tpu'],
    ['ERR_ARGUMENT', 'no steps', () => new BatchNormThroughTime2d(0, 3), 'T', 'got 0'],
    [
      'ERR_ARGUMENT',
      'steps without end',
      () => new TemporalEffectiveBatchNorm2d(Number.POSITIVE_INFINITY, 3),
      'T',
    ],
    ['ERR_ARGUMENT', 'an alpha', () => new ThresholdDependentBatchNorm2d(Number.NaN, 1, 3), 'alpha'],
    ['ERR_ARGUMENT', 'a threshold', () => new ThresholdDependentBatchNorm2d(1, 'x' as never, 3), 'vTh'],
    ['ERR_ARGUMENT', 'a height', () => new NeuNorm(3, 0, 2), 'NeuNorm', 'height'],
    ['ERR_ARGUMENT', 'a decay', () => new NeuNorm(3, 2, 2, { k: Number.NaN }), 'k'],
    ['ERR_ARGUMENT', 'no threads', () => setNumThreads(0), 'setNumThreads'],
    ['ERR_ARGUMENT', 'threads by half', () => setNumThreads(1.5), '1.5'],
    ['ERR_ARGUMENT', 'threads as text', () => setNumThreads('2' as never)],
    ['ERR_ARGUMENT', 'an asynchronous noGrad', () => noGrad(async () => 1), 'noGrad'],
    ['ERR_ARGUMENT', 'an asynchronous enableGrad', () => enableGrad(() => Promise.resolve(1)), 'enableGrad'],
    ['ERR_ARGUMENT', 'a negative permutation', () => randperm(-1)],
  ]
  for (const [code, what, call, ...words] of refused) {
    it(`refuse ${what} with ${code}, naming the argument`, () => {
      const error = expectCode(code, call, ...words)
      expect(error.name).toBe('SpikenormError')
      expect(error).toBeInstanceOf(Error)
      expect(error).toBeInstanceOf(SpikenormError)
    })
  }

  it.skipIf(cuda.isAvailable())('answer ERR_CUDA_UNAVAILABLE with a reason where there is no CUDA', () => {
    const attempts: (() => unknown)[] = [
      () => tensor([1], [1], { device: 'cuda' }),
      () => zeros([1], { device: 'cuda:0' }),
      () => tensor([1], [1]).to('cuda'),
      () => new BatchNorm2d(3, { device: 'cuda' }),
      () => new NeuNorm(3, 2, 2, { device: 'cuda:1' }),
      () => new BatchNorm2d(3).to('cuda'),
    ]
    for (const attempt of attempts) expectCode('ERR_CUDA_UNAVAILABLE', attempt, /cuda.*: .{10}/)
    expect(cuda.devices()).toEqual([])
    const layer = new BatchNorm2d(3)
    const before = snapshot(layer)
    expectCode('ERR_CUDA_UNAVAILABLE', () => layer.to('cuda'))
    expectSameSnapshot('layer', snapshot(layer), before)
    expect(layer.parameters()[0]!.device).toBe('cpu')
  })
})
