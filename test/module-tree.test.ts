// Trees of modules: what is shared counts once, what is disposed of is gone, and which backward has no forward and why.

import { describe, expect, it } from 'vitest'
import {
  BatchNorm1d,
  BatchNorm2d,
  BatchNormThroughTime1d,
  enableGrad,
  functional,
  Module,
  memoryStats,
  NeuNorm,
  nn,
  noGrad,
  ones,
  optim,
  type Parameter,
  TemporalEffectiveBatchNorm1d,
  Tensor,
  ThresholdDependentBatchNorm1d,
  tensor,
} from '../src/index.js'
import { expectCode } from './nn/support.js'
import { collect } from './support/collect.js'
import { Tree } from './support/modules.js'

class Counts extends Module {
  readonly calls: string[] = []
  protected override computeForward(x: Tensor): Tensor {
    return x
  }
  protected override computeBackward(dy: Tensor): Tensor {
    return dy
  }
  override reset(): void {
    this.calls.push('reset')
  }
  override detach(): void {
    this.calls.push('detach')
  }
  override dispose(): void {
    super.dispose()
    this.calls.push('dispose')
  }
}

describe('what occurs twice in a net', () => {
  const shared = () => {
    const norm = new BatchNorm1d(2)
    const net = new nn.Sequential(norm, new nn.Sequential(new nn.Linear(2, 2), norm), new nn.Residual(norm))
    return { norm, net }
  }

  it('is named once, under its first name; the state dict has all names, as in PyTorch', () => {
    const { norm, net } = shared()
    expect(net.namedParameters().map(([name]) => name)).toEqual([
      '0.weight',
      '0.bias',
      '1.0.weight',
      '1.0.bias',
    ])
    expect(net.namedBuffers().map(([name]) => name)).toEqual([
      '0.running_mean',
      '0.running_var',
      '0.num_batches_tracked',
    ])
    expect(net.parameters().length).toBe(4)
    expect(net.modules().length).toBe(5)
    expect(new nn.Sequential(norm, norm).children()).toEqual([norm])
    const keys = Object.keys(net.stateDict())
    expect(keys).toHaveLength(4 + 2 * 2 + 3 * 3)
    expect(keys).toContain('2.module.running_var')
    net.loadStateDict(net.stateDict())
  })

  it('computes twice and is clipped, reset, converted and disposed of once', () => {
    const counts = new Counts()
    const net = new nn.Sequential(
      counts,
      new nn.Residual(counts),
      new Tree({ a: counts, b: new nn.Sequential(counts) }),
    )
    net.reset()
    net.detach()
    functional.resetNet(net)
    net.dispose()
    expect(counts.calls).toEqual(['reset', 'detach', 'reset', 'reset', 'dispose'])

    const { net: twice } = shared()
    twice.to('float64')
    for (const parameter of twice.parameters()) parameter.grad = ones(parameter.shape, { dtype: 'float64' })
    // As clipping does: every gradient times a half.
    for (const parameter of twice.parameters()) {
      const values = (parameter.grad as Tensor).toFloat64Array().map((value) => value / 2)
      ;(parameter.grad as Tensor).copy_(tensor(values, parameter.shape))
    }
    for (const { grad } of twice.parameters()) expect(new Set(grad?.toFloat64Array())).toEqual(new Set([0.5]))
  })

  it('may be a parameter that two modules have: stepped once, converted once', () => {
    class Tied extends Module {
      readonly a = this.registerModule('a', new nn.Linear(2, 2, { bias: false }))
      readonly w: Parameter = this.registerParameter('w', this.a.weight)
      protected override computeForward(x: Tensor): Tensor {
        return this.a.forward(x)
      }
      protected override computeBackward(dy: Tensor): Tensor {
        return this.a.backward(dy)
      }
    }
    const tied = new Tied()
    expect(tied.namedParameters().map(([name]) => name)).toEqual(['w'])
    expect(Object.keys(tied.stateDict())).toEqual(['w', 'a.weight'])
    tied.to('float64')
    expect(tied.a.weight.dtype).toBe('float64')
    const before = tied.w.toFloat64Array()
    tied.w.grad = ones([2, 2], { dtype: 'float64' })
    new optim.SGD([...tied.parameters(), tied.a.weight], { lr: 1 }).step()
    expect([...tied.w.toFloat64Array()]).toEqual([...before].map((value) => value - 1))
  })

  it('is not a module below itself, which is refused', () => {
    class Free extends Counts {
      add(module: Module): void {
        this.registerModule('below', module)
      }
    }
    const [outer, inner] = [new Free(), new Free()]
    outer.add(inner)
    expectCode('ERR_ARGUMENT', () => inner.add(outer), 'Free: below: a module cannot be below itself')
    expectCode('ERR_ARGUMENT', () => outer.add(outer), 'below itself')
    expect(outer.modules()).toEqual([outer, inner])
  })
})

describe('what a module is made of', () => {
  class Makes extends Counts {
    parameter(value: unknown): void {
      this.registerParameter('w', value as Parameter)
    }
    buffer(value: unknown): void {
      this.registerBuffer('count', value as Tensor)
    }
  }

  it('is checked where it is registered', () => {
    const makes = new Makes()
    expectCode('ERR_ARGUMENT', () => makes.parameter(ones([1])), 'Makes: w: expected a Parameter')
    expectCode('ERR_ARGUMENT', () => makes.buffer([1]), 'Makes: count: expected a Tensor')
    expect(makes.stateDict()).toEqual({})
  })

  it('hands reset() and detach() down, and a container its step mode to all below', () => {
    const lif = new nn.LIFNode()
    const net = new nn.Sequential(new Tree({ lif }))
    net.eval().forward(ones([1, 2]))
    expect(lif.v).not.toBeNull()
    net.at(0)?.reset()
    expect(lif.v).toBeNull()
    net.stepMode = 'm'
    expect(lif.stepMode).toBe('m')
  })

  it('has a mode that is true or false', () => {
    const net = new nn.Sequential(new BatchNorm1d(2))
    expectCode('ERR_ARGUMENT', () => net.train('eval' as unknown as boolean), 'Sequential: train: mode')
    expect(net.modules().map(({ training }) => training)).toEqual([true, true])
  })

  it('returns tensors, or says so', () => {
    class Forgets extends Counts {
      protected override computeForward(): Tensor {
        return undefined as unknown as Tensor
      }
    }
    const net = new nn.Sequential(new BatchNorm1d(2), new Forgets())
    expectCode(
      'ERR_ARGUMENT',
      () => net.forward(ones([2, 2])),
      'Forgets: computeForward: expected to return a Tensor',
    )
    expect(net.modules().map(({ pendingForwards }) => pendingForwards)).toEqual([0, 0, 0])
  })
})

describe('dispose()', () => {
  const T = 2
  const kinds: [string, () => Module, number[]][] = [
    ['BatchNorm1d', () => new BatchNorm1d(1000), [2, 1000]],
    ['BatchNorm1d without parameters', () => new BatchNorm1d(1000, { affine: false }), [2, 1000]],
    [
      'BatchNorm1d without any tensor',
      () => new BatchNorm1d(8, { affine: false, trackRunningStats: false }),
      [2, 8],
    ],
    ['tdBN', () => new ThresholdDependentBatchNorm1d(1, 1, 1000), [T, 2, 1000]],
    ['TEBN', () => new TemporalEffectiveBatchNorm1d(T, 1000), [T, 2, 1000]],
    ['BNTT', () => new BatchNormThroughTime1d(T, 1000, { stepMode: 'm' }), [T, 2, 1000]],
    ['NeuNorm', () => new NeuNorm(3, 20, 20), [2, 3, 20, 20]],
    ['LIFNode', () => new nn.LIFNode(), [2, 1000]],
    ['Conv2d', () => new nn.Conv2d(2, 3, 3), [1, 2, 9, 9]],
    ['Linear', () => new nn.Linear(100, 50), [2, 100]],
    ['MaxPool2d', () => new nn.MaxPool2d(2), [1, 2, 8, 8]],
    ['Flatten', () => new nn.Flatten(), [2, 3, 4]],
    ['PerStep', () => new nn.PerStep([new BatchNorm1d(1000), new BatchNorm1d(1000)]), [2, 1000]],
    ['Residual', () => new nn.Residual(new nn.Sequential(new BatchNorm1d(1000))), [2, 1000]],
    ['a module of a user', () => new Tree({ a: new BatchNorm1d(1000), b: new nn.IFNode() }), [2, 1000]],
  ]

  it.each(kinds)(
    'of %s in a net frees all of it at once, and every use afterwards says so',
    (_, make, shape) => {
      const x = ones(shape)
      collect()
      const before = memoryStats().allocated
      const inner = make()
      const net = new nn.Sequential(inner, new nn.Sequential(inner))
      const y = net.at(0)?.forward(x) as Tensor
      if (inner.pendingForwards > 0) inner.backward(y).dispose()
      inner.reset()
      inner.forward(x).dispose()
      y.dispose()
      const pending = make()
      const call = pending.vjp(x)
      pending.dispose()
      call.y.dispose()
      expectCode('ERR_DISPOSED', () => call.backward(x), pending.constructor.name)
      net.dispose()
      // What a module of a user's was given is left to the garbage collector.
      if (inner instanceof Tree) collect()
      expect(memoryStats().allocated - before).toBeLessThanOrEqual(0)

      const { name } = inner.constructor
      for (const use of [
        () => inner.forward(x),
        () => inner.backward(x),
        () => inner.vjp(x),
        () => inner.stateDict(),
        () => inner.loadStateDict({}),
        () => inner.to('float64'),
        () => net.stateDict(),
      ]) {
        expectCode('ERR_DISPOSED', use)
      }
      expectCode('ERR_DISPOSED', () => inner.forward(x), `${name}: `)
      expectCode('ERR_DISPOSED', () => net.forward(x), 'Sequential: the module has been disposed of')
      inner.reset()
      functional.resetNet(net)
      net.dispose()
      x.dispose()
    },
  )

  it('frees at once what is not yet garbage, too', () => {
    const alone = new BatchNorm1d(100_000)
    const before = memoryStats().allocated
    const net = new nn.Sequential(
      new BatchNorm1d(100_000),
      new nn.Residual(new BatchNormThroughTime1d(2, 100_000)),
    )
    net.dispose()
    expect(memoryStats().allocated).toBeLessThanOrEqual(before)
    alone.dispose()
  })

  it("calls users' own, once each, and goes on where a reset() throws", () => {
    class Throws extends Counts {
      override reset(): void {
        throw new Error('of its own')
      }
    }
    const counts = new Counts()
    const norm = new BatchNorm1d(2)
    const net = new nn.Sequential(new Throws(), counts, new nn.Residual(counts), norm)
    expect(() => net.dispose()).toThrow('of its own')
    expect(counts.calls.filter((call) => call === 'dispose')).toHaveLength(1)
    expectCode('ERR_DISPOSED', () => norm.forward(ones([2, 2])))
  })
})

describe('a backward without a forward says why', () => {
  const x = () => ones([2, 3, 4, 4])
  const layers: [string, () => Module][] = [
    ['BatchNorm2d', () => new BatchNorm2d(3)],
    ['NeuNorm', () => new NeuNorm(3, 4, 4)],
    ['LIFNode', () => new nn.LIFNode()],
    ['Conv2d', () => new nn.Conv2d(3, 3, 1)],
    ['AvgPool2d', () => new nn.AvgPool2d(1)],
    ['Residual', () => new nn.Residual(new BatchNorm2d(3))],
    ['Sequential', () => new nn.Sequential(new BatchNorm2d(3), new nn.IFNode())],
    ['PerStep', () => new nn.PerStep([new BatchNorm2d(3)], { cyclic: true })],
  ]
  it.each(layers)('%s', (name, make) => {
    const layer = make()
    const says = (...words: string[]) =>
      expectCode('ERR_NO_FORWARD', () => layer.backward(x()), name, ...words)
    says('no forward has been recorded')
    layer.eval().forward(x())
    says('not recorded', 'training mode')
    layer.reset()
    noGrad(() => layer.train().forward(x()))
    says('not recorded', 'noGrad()')
    layer.reset()
    layer.forward(x())
    layer.backward(x())
    says("this forward's backward has been called")
    layer.reset()
    layer.forward(x())
    layer.reset()
    says('reset() has dropped')
    layer.eval()
    enableGrad(() => layer.forward(x()))
    layer.backward(x())
    says('has been called')
  })
})

describe('a container whose dy is wrong', () => {
  const nets: [string, () => Module][] = [
    ['Flatten', () => new nn.Sequential(new BatchNorm1d(2), new nn.Flatten())],
    ['Residual(Identity)', () => new nn.Sequential(new BatchNorm1d(2), new nn.Residual(new nn.Identity()))],
    ['Identity', () => new nn.Sequential(new BatchNorm1d(2), new nn.Identity())],
    ['PerStep', () => new nn.Sequential(new BatchNorm1d(2), new nn.PerStep([new nn.Identity()]))],
    ['a module of a user', () => new nn.Sequential(new BatchNorm1d(2), new Counts())],
    ['nothing', () => new nn.Sequential()],
  ]
  it.each(nets)('refuses it and takes the right one: %s', (_, make) => {
    const net = make()
    net.forward(tensor([1, 2, 3, 5], [2, 2]))
    expectCode('ERR_DTYPE', () => net.backward(ones([2, 2], { dtype: 'float64' })), 'dy')
    expectCode('ERR_SHAPE', () => net.backward(ones([2, 3])), 'dy')
    expectCode('ERR_SHAPE', () => net.backward(ones([4])), 'dy')
    expect(net.backward(ones([2, 2])).shape).toEqual([2, 2])
    expect(net.modules().map(({ pendingForwards }) => pendingForwards)).toEqual(net.modules().map(() => 0))
  })

  it('Flatten alone looks at the dtype too', () => {
    const flatten = new nn.Flatten()
    flatten.forward(ones([2, 2, 2]))
    expectCode('ERR_DTYPE', () => flatten.backward(ones([2, 4], { dtype: 'float64' })), 'Flatten: dy')
    expect(flatten.backward(ones([2, 4])).shape).toEqual([2, 2, 2])
  })
})

describe('an optimiser', () => {
  it('says which gradient is none', () => {
    const { weight } = new nn.Linear(2, 2)
    expectCode(
      'ERR_ARGUMENT',
      () => {
        weight.grad = undefined as unknown as Tensor
      },
      'grad: expected a Tensor or null, got undefined',
    )
    expectCode(
      'ERR_ARGUMENT',
      () => {
        weight.grad = [1] as unknown as Tensor
      },
      'grad',
    )
    const gone = ones([2, 2])
    gone.dispose()
    expectCode('ERR_DISPOSED', () => {
      weight.grad = gone
    })
    expect(weight.grad).toBeNull()
  })

  it.each(['SGD', 'Adam', 'AdamW'] as const)('%s moves nothing where one gradient cannot be read', (name) => {
    const layer = new nn.Linear(1, 1)
    const values = new Float32Array([1])
    const optimizer = new optim[name](layer.parameters(), { lr: 1 })
    layer.weight.grad = ones([1, 1])
    ;(layer.bias as Parameter).grad = Tensor.fromTypedArray(values, [1])
    const before = layer.weight.item()
    structuredClone(values.buffer, { transfer: [values.buffer] })
    expectCode('ERR_DISPOSED', () => optimizer.step(), name)
    expect(layer.weight.item()).toBe(before)
    expect(Object.keys(optimizer.stateDict())).toEqual(['lr'])
  })
})

it('loadStateDict writes nothing where one source cannot be read', () => {
  const norm = new BatchNorm1d(2)
  const values = new Float32Array([7, 8])
  const dict = { ...norm.stateDict(), weight: tensor([5, 6], [2]), bias: Tensor.fromTypedArray(values, [2]) }
  structuredClone(values.buffer, { transfer: [values.buffer] })
  expectCode('ERR_DISPOSED', () => norm.loadStateDict(dict), 'BatchNorm1d')
  expect([...(norm.parameters()[0] as Tensor).toTypedArray()]).toEqual([1, 1])
})

it('loadStateDict takes the very tensors of the module', () => {
  const net = new nn.Sequential(new BatchNorm1d(2), new nn.Linear(2, 2))
  const before = net.stateDict()
  net.loadStateDict(Object.fromEntries([...net.namedParameters(), ...net.namedBuffers()]))
  for (const [name, value] of Object.entries(net.stateDict())) {
    expect([...value.toFloat64Array()]).toEqual([...(before[name] as Tensor).toFloat64Array()])
  }
})

it('noGrad and enableGrad run no asynchronous function, and take functions only', async () => {
  let ran = false
  for (const within of [noGrad, enableGrad]) {
    expectCode(
      'ERR_ARGUMENT',
      () =>
        within(async () => {
          ran = true
        }),
      'synchronous',
    )
    expectCode('ERR_ARGUMENT', () => within(() => Promise.reject(new Error('of its own'))), 'synchronous')
    expectCode('ERR_ARGUMENT', () => within(1 as unknown as () => void), 'expected a function')
  }
  await new Promise(setImmediate)
  expect(ran).toBe(false)
})

it('a class of a user that lacks computeForward or computeBackward is told so', () => {
  class Half extends (Module as unknown as new () => object) {
    computeForward(x: Tensor): Tensor {
      return x
    }
  }
  class None extends (Module as unknown as new () => object) {}
  expectCode(
    'ERR_ARGUMENT',
    () => (new None() as Module).forward(ones([1])),
    'None: computeForward: it is missing',
  )
  const half = new Half() as unknown as Module
  half.forward(ones([1]))
  expectCode('ERR_ARGUMENT', () => half.backward(ones([1])), 'Half: computeBackward: it is missing')
})
