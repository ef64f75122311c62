// A call that throws has changed nothing: every native call of every operation is made to fail, one after the other.

import { describe, expect, it } from 'vitest'
import {
  BatchNorm2d,
  BatchNormThroughTime2d,
  functional,
  Module,
  manualSeed,
  memoryStats,
  NeuNorm,
  nn,
  noGrad,
  ones,
  optim,
  type Parameter,
  TemporalEffectiveBatchNorm2d,
  Tensor,
  ThresholdDependentBatchNorm2d,
  tensor,
} from '../src/index.js'
import { noisy, snapshot } from './nn/support.js'
import { collect } from './support/collect.js'
import { expectCode } from './support/compare.js'
import { withEveryFault } from './support/faults.js'
import { Tree } from './support/modules.js'

const float64 = { dtype: 'float64' } as const
const [T, N, C, H] = [2, 3, 2, 4]

/** A module of a user's that says nothing of the net it calls. */
class Hides extends Module {
  readonly #hidden: Module
  constructor(hidden: Module) {
    super()
    this.#hidden = hidden
  }
  protected override computeForward(x: Tensor): Tensor {
    return this.#hidden.forward(x)
  }
  protected override computeBackward(dy: Tensor): Tensor {
    return this.#hidden.backward(dy)
  }
  get hidden(): Module {
    return this.#hidden
  }
}

/** Calls its net for each step, and goes on without it where it fails. */
class Catches extends Module {
  readonly net: Module
  constructor(net: Module) {
    super()
    this.net = this.registerModule('net', net)
  }
  protected override computeForward(x: Tensor): Tensor {
    try {
      return this.net.forward(x)
    } catch {
      return x
    }
  }
  protected override computeBackward(dy: Tensor): Tensor {
    return this.net.backward(dy)
  }
}

const small = (mode: 's' | 'm'): Module[] => {
  const conv = () => new nn.Conv2d(C, C, 3, { padding: 1, stepMode: mode, ...float64 })
  const norm = () => new BatchNorm2d(C, { stepMode: mode, ...float64 })
  const all = [
    conv(),
    norm(),
    new nn.LIFNode({ vThreshold: 0.2, stepMode: mode }),
    new NeuNorm(C, H, H, { stepMode: mode, ...float64 }),
    new nn.Residual(
      new nn.Sequential(new BatchNormThroughTime2d(8, C, { stepMode: mode, ...float64 }), conv()),
    ),
    new Tree({ a: norm(), b: new nn.IFNode({ vThreshold: 0.1, stepMode: mode }) }),
    new nn.PerStep([norm(), norm(), norm(), norm(), norm(), norm(), norm(), norm()], { stepMode: 's' }),
    new nn.MaxPool2d(2, { stepMode: mode }),
    new nn.AvgPool2d(1, { stepMode: mode }),
    new Hides(new nn.Sequential(new BatchNorm2d(C, { momentum: null, stepMode: mode, ...float64 }))),
    new nn.Identity(),
    new nn.Flatten({ stepMode: mode }),
    new nn.Linear((C * H * H) / 4, 3, { stepMode: mode, ...float64 }),
  ]
  const perStep = all[6] as nn.PerStep
  if (mode === 'm') for (const module of perStep.modules()) module.stepMode = 'm'
  if (mode === 'm') {
    all.splice(
      4,
      0,
      new ThresholdDependentBatchNorm2d(1, 1, C, float64),
      new TemporalEffectiveBatchNorm2d(T, C, float64),
    )
  }
  return all
}

function build(mode: 's' | 'm'): nn.Sequential {
  manualSeed(1)
  return new nn.Sequential(...small(mode))
}

const hiddenOf = (net: Module) =>
  net.modules().flatMap((module) => (module instanceof Hides ? [snapshot(module.hidden)] : []))

/** Everything that can be seen of a net, what it hides too. */
const everything = (net: Module) => ({ net: snapshot(net), hidden: hiddenOf(net) })

const bits = (value: unknown) => (value instanceof Tensor ? [...value.toFloat64Array()] : value)

/** Does the same with `seen`, in which every native call fails in turn, and with `twin`, in which none does. */
class Pair<M extends Module> {
  constructor(
    readonly seen: M,
    readonly twin: M,
  ) {
    expect(everything(seen)).toEqual(everything(twin))
  }

  does<R>(what: string, operation: (net: M) => R): { faults: number; result: R } {
    const before = everything(this.seen)
    const text = JSON.stringify(before)
    let faults = 0
    const got = withEveryFault(
      () => operation(this.seen),
      (call) => {
        faults++
        const now = everything(this.seen)
        // Most of the time goes into this comparison.
        if (JSON.stringify(now) !== text) expect(now, `${what}: call ${call}`).toEqual(before)
      },
    )
    const wanted = operation(this.twin)
    expect(bits(got), what).toEqual(bits(wanted))
    expect(everything(this.seen), `${what}: afterwards`).toEqual(everything(this.twin))
    return { faults, result: got }
  }
}

const shape = (mode: 's' | 'm') => (mode === 'm' ? [T, N, C, H, H] : [N, C, H, H])

// Thousands of calls, each with a look at everything.
describe('whichever native call fails, nothing has changed and the retry has the same bits', {
  timeout: 120_000,
}, () => {
  it.each(['s', 'm'] as const)('forwards and backwards of a net of all layers (%s)', (mode) => {
    const pair = new Pair(build(mode), build(mode))
    const inputs = [1, 2].map((seed) => noisy(seed, shape(mode)))
    const run = () => {
      const { faults, result } = pair.does('forward', (net) => net.forward(inputs[0] as Tensor))
      expect(faults).toBeGreaterThan(30)
      pair.does('second forward', (net) => net.forward(inputs[1] as Tensor))
      for (const seed of [3, 4]) {
        const dy = noisy(seed, result.shape)
        expect(pair.does('backward', (net) => net.backward(dy)).faults).toBeGreaterThan(10)
      }
      pair.does('forward without recording', (net) => noGrad(() => net.forward(inputs[0] as Tensor)))
      pair.does('reset', (net) => net.reset())
    }
    run()
    // Gradients are there now, and are added to.
    run()
    pair.does('eval', (net) => {
      net.eval()
    })
    pair.does('forward in eval', (net) => net.forward(inputs[0] as Tensor))
  })

  it.each(['s', 'm'] as const)('leaves no memory behind (%s)', (mode) => {
    const use = (net: Module, call: <R>(operation: () => R) => R) => {
      const x = noisy(1, shape(mode))
      for (let i = 0; i < 2; i++) {
        const y = call(() => net.forward(x))
        call(() => net.backward(y)).dispose()
        y.dispose()
      }
      call(() => net.zeroGrad())
      net.reset()
    }
    const grown = (call: <R>(operation: () => R) => R) => {
      const net = build(mode)
      use(net, (operation) => operation())
      collect()
      const before = memoryStats().allocated
      use(net, call)
      collect()
      const after = memoryStats().allocated
      net.dispose()
      return after - before
    }
    expect(grown((operation) => withEveryFault(operation, () => {}))).toBe(grown((operation) => operation()))
  })

  it.each([
    ['SGD', (net: Module) => new optim.SGD(net.parameters(), { lr: 0.1, momentum: 0.9 })],
    ['Adam', (net: Module) => new optim.Adam(net.parameters(), { lr: 0.1 })],
  ] as const)('steps, state dicts and conversions with %s', (_, make) => {
    const pair = new Pair(build('m'), build('m'))
    const optimizers = new Map([pair.seen, pair.twin].map((net) => [net as Module, make(net)]))
    const of = (net: Module) => optimizers.get(net) as optim.Adam
    const values = (dict: Record<string, Tensor>) =>
      Object.entries(dict).map(([key, value]) => [key, bits(value)])
    const x = noisy(1, shape('m'))
    const train = () => {
      const y = pair.does('forward', (net) => net.forward(x)).result
      pair.does('backward', (net) => net.backward(y))
      for (let i = 0; i < 2; i++) {
        const before = values(of(pair.seen).stateDict())
        pair.does('step', (net) => {
          if (net === pair.seen) expect(values(of(net).stateDict())).toEqual(before)
          of(net).step()
        })
      }
      pair.does('zeroGrad', (net) => net.zeroGrad())
      pair.does('reset', (net) => net.reset())
      return Object.fromEntries(Object.entries(of(pair.seen).stateDict()))
    }
    const state = pair.does('stateDict', (net) => values(net.stateDict()) && net.stateDict()).result
    const optimizerState = train()
    pair.does('loadStateDict', (net) => net.loadStateDict(state))
    pair.does('loadStateDict of the optimiser', (net) => of(net).loadStateDict(optimizerState))
    const y = pair.does('forward', (net) => net.forward(x)).result
    pair.does('backward', (net) => net.backward(y))
    pair.does('reset', (net) => net.reset())
    pair.does('to', (net) => {
      net.to('float32')
    })
    pair.does('step in another dtype', (net) => of(net).step())
    pair.does('to and back', (net) => {
      net.to('float64')
    })
    pair.does('modes', (net) => functional.setStepMode(net.at(0) as Module, 's'))
  })
})

describe('a module of a user', () => {
  const inner = () => new nn.Sequential(new BatchNorm2d(C, float64), new nn.Linear(H + 1, 1, float64))

  it('may call modules that it has not registered: what they did is undone with the rest', () => {
    const net = new Hides(inner())
    const before = everything(net)
    expect(() => net.forward(noisy(1, [N, C, H, H]))).toThrow('Linear')
    expect(everything(net)).toEqual(before)
  })

  it('may catch what a module throws, which has then changed nothing, in forward and in backward', () => {
    const net = new Catches(inner())
    const before = snapshot(net)
    const y = net.forward(noisy(1, [N, C, H, H]))
    expect(snapshot(net)).toEqual(before)
    expect(y.shape).toEqual([N, C, H, H])
    const ok = new nn.Sequential(
      new Catches(new nn.Sequential(new BatchNorm2d(C, float64))),
      new BatchNorm2d(C, float64),
    )
    ok.forward(noisy(1, [N, C, H, H]))
    expect(ok.modules().map(({ pendingForwards }) => pendingForwards)).toEqual([1, 0, 1, 1, 1])
  })

  it('sees the gradients of what it is made of, and what it makes of them stays', () => {
    class Scales extends Module {
      readonly linear = this.registerModule('linear', new nn.Linear(2, 2, float64))
      fails = false
      protected override computeForward(x: Tensor): Tensor {
        return this.linear.forward(x)
      }
      protected override computeBackward(dy: Tensor): Tensor {
        const dx = this.linear.backward(dy)
        const grad = this.linear.weight.grad as Tensor
        this.linear.weight.grad = tensor(
          grad.toFloat64Array().map((value) => 2 * value),
          grad.shape,
        )
        this.linear.bias?.zeroGrad()
        if (this.fails) throw new Error('afterwards')
        return dx
      }
    }
    const scales = new Scales()
    const plain = new nn.Linear(2, 2, float64)
    plain.loadStateDict(scales.linear.stateDict())
    const x = noisy(1, [3, 2])
    for (const module of [scales, plain]) module.forward(x)
    plain.backward(x)
    scales.fails = true
    expect(() => scales.backward(x)).toThrow('afterwards')
    expect(scales.parameters().map(({ grad }) => grad)).toEqual([null, null])
    scales.fails = false
    scales.backward(x)
    const expected = (plain.weight.grad as Tensor).toFloat64Array().map((value) => 2 * value)
    expect(bits(scales.linear.weight.grad)).toEqual([...expected])
    expect(scales.linear.bias?.grad).toBeNull()
  })

  it('that changes a buffer, a mode or a value and throws has changed nothing', () => {
    class Changes extends Module {
      readonly count = this.registerBuffer('count', tensor([0], [1]))
      readonly norm = this.registerModule('norm', new BatchNormThroughTime2d(2, C, float64))
      protected override computeForward(x: Tensor): Tensor {
        this.count.copy_(ones([1]))
        this.eval()
        this.norm.resetParameters()
        this.norm.stepMode = 'm'
        this.norm.reset()
        throw new Error(String(x.size))
      }
      protected override computeBackward(dy: Tensor): Tensor {
        return dy
      }
    }
    const module = new Changes()
    module.norm.forward(noisy(1, [N, C, H, H]))
    module.norm.loadStateDict({ 'bn_list.0.weight': tensor([5, 6], [2]) }, { strict: false })
    const before = everything(module)
    expect(() => module.forward(noisy(1, [N, C, H, H]))).toThrow('96')
    expect(everything(module)).toEqual(before)
    // The step index too: one step of two is left.
    module.norm.forward(noisy(2, [N, C, H, H]))
    expect(() => module.norm.forward(noisy(2, [N, C, H, H]))).toThrow('T = 2')
  })
})

describe('a gradient that cannot be added to', () => {
  const lent = (size: number) => Tensor.fromTypedArray(new Float64Array(size), [size])

  it.each([
    ['BatchNorm', () => new BatchNorm2d(C, float64), [N, C, H, H]],
    ['Linear', () => new nn.Linear(H, H, float64), [N, H]],
    ['Conv2d', () => new nn.Conv2d(C, C, 1, float64), [N, C, H, H]],
    ['BNTT', () => new BatchNormThroughTime2d(T, C, { stepMode: 'm', ...float64 }), [T, N, C, H, H]],
    ['TEBN', () => new TemporalEffectiveBatchNorm2d(T, C, float64), [T, N, C, H, H]],
    [
      'a Sequential',
      () => new nn.Sequential(new nn.Linear(H, H, float64), new nn.Linear(H, H, float64)),
      [N, H],
    ],
  ] as [string, () => Module, number[]][])(
    'costs %s neither the other gradients nor its forward',
    (_, make, shape) => {
      const module = make()
      module.forward(noisy(1, shape))
      const parameters = module.parameters()
      const last = parameters.findLast((parameter) => parameter.shape.length === 1) as Parameter
      for (const parameter of parameters) {
        if (parameter !== last) parameter.grad = tensor(new Float64Array(parameter.size), parameter.shape)
      }
      last.grad = lent(last.size)
      const before = snapshot(module)
      for (let i = 0; i < 3; i++) {
        expect(() => module.backward(noisy(2, shape))).toThrow('only read')
        expect(snapshot(module)).toEqual(before)
      }
      last.grad = null
      module.backward(noisy(2, shape))
      expect(module.pendingForwards).toBe(0)
      expect(last.grad).toBeInstanceOf(Tensor)
    },
  )
})

describe('resetParameters', () => {
  it.each([
    ['Linear', () => new nn.Linear(2, 2), 'bias'],
    ['Conv2d', () => new nn.Conv2d(2, 2, 1), 'bias'],
    ['TEBN', () => new TemporalEffectiveBatchNorm2d(T, C), 'scale'],
  ] as [string, () => nn.Linear | nn.Conv2d | TemporalEffectiveBatchNorm2d, string][])(
    'of %s changes nothing where one parameter cannot be used',
    (_, make, name) => {
      const layer = make()
      const parameters = Object.fromEntries(layer.namedParameters())
      for (const value of [...layer.parameters(), ...layer.namedBuffers().map(([, buffer]) => buffer)]) {
        value.copy_(tensor(new Float64Array(value.size).fill(7), value.shape))
      }
      parameters[name]?.dispose()
      expectCode('ERR_DISPOSED', () => layer.resetParameters())
      const left = [...layer.namedParameters(), ...layer.namedBuffers()].filter(([key]) => key !== name)
      for (const [, value] of left) expect(new Set(value.toFloat64Array())).toEqual(new Set([7]))
    },
  )
})

describe("what a module of a user's does in a forward that throws is undone:", () => {
  const layer = new nn.Linear(2, 2)
  const norm = new BatchNorm2d(C)
  const optimizer = new optim.Adam(layer.parameters())
  const schedule = new optim.CosineAnnealingLR(optimizer, { tMax: 10 })
  layer.weight.grad = ones([2, 2])
  optimizer.step()
  const saved = { net: layer.stateDict(), optimizer: optimizer.stateDict(), schedule: schedule.stateDict() }
  optimizer.step()
  schedule.step()

  class Meddles extends Module {
    readonly #act: () => void
    constructor(act: () => void) {
      super()
      this.#act = act
    }
    protected override computeForward(): Tensor {
      this.#act()
      throw new Error('after all')
    }
    protected override computeBackward(dy: Tensor): Tensor {
      return dy
    }
  }

  const all = () =>
    [layer, optimizer, schedule].flatMap((one) =>
      Object.entries<Tensor>(one.stateDict()).map(([name, value]) => [
        name,
        value.dtype,
        [...value.toFloat64Array()],
      ]),
    )

  it.each([
    ['loadStateDict of a module', () => layer.loadStateDict(saved.net)],
    ['loadStateDict of an optimiser', () => optimizer.loadStateDict(saved.optimizer)],
    ['loadStateDict of a schedule', () => schedule.loadStateDict(saved.schedule)],
    ['a step of a schedule', () => schedule.step()],
    ['a learning rate', () => Object.assign(optimizer, { lr: 5 })],
    ['a momentum', () => Object.assign(norm, { momentum: null })],
    ['a conversion', () => layer.to('float64')],
    ['two conversions', () => layer.to('float64').to('float32').loadStateDict(saved.net)],
  ] as [string, () => void][])('%s', (_, act) => {
    const before = all()
    expect(() => new Meddles(act).forward(ones([1]))).toThrow('after all')
    expect(all()).toEqual(before)
    expect(norm.momentum).toBe(0.1)
    expect(layer.forward(ones([1, 2])).dtype).toBe('float32')
    layer.reset()
    optimizer.step()
  })
})
