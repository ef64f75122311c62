// Sequential and Residual, and what stays when something in them throws.

import { describe, expect, it } from 'vitest'
import {
  BatchNorm2d,
  BatchNormThroughTime2d,
  functional,
  Module,
  memoryStats,
  NeuNorm,
  nn,
  type Tensor,
  ThresholdDependentBatchNorm2d,
  tensor,
} from '../../src/index.js'
import { expectCode, expectGradients, noisy, snapshot } from './support.js'

const float64 = { dtype: 'float64' } as const
const numbers = (value: Tensor) => [...value.toFloat64Array()]

describe('Sequential', () => {
  it('names what is in it as PyTorch does, and can be walked', () => {
    const inner = new nn.Sequential(new nn.Linear(2, 2, { bias: false }))
    const net = new nn.Sequential(new BatchNorm2d(2), new nn.Residual(inner))
    expect(Object.keys(net.stateDict())).toEqual([
      '0.weight',
      '0.bias',
      '1.module.0.weight',
      '0.running_mean',
      '0.running_var',
      '0.num_batches_tracked',
    ])
    expect([...net]).toEqual([net.at(0), net.at(1)])
    expect([net.length, net.at(-1) === net.at(1), net.at(2)]).toEqual([2, true, undefined])
  })

  it('computes what its modules do one after the other, and back', () => {
    const layers = [
      new nn.Conv2d(2, 3, 3, float64),
      new nn.AvgPool2d(2),
      new nn.Flatten(),
      new nn.Linear(3, 2, float64),
    ]
    const net = new nn.Sequential(...layers)
    const x = noisy(1, [4, 2, 4, 4])
    const dy = noisy(2, [4, 2])
    const y = numbers(net.forward(x))
    const dx = numbers(net.backward(dy))
    expect(numbers(layers.reduce((value, layer) => layer.forward(value), x))).toEqual(y)
    expect(numbers(layers.reduceRight((gradient, layer) => layer.backward(gradient), dy))).toEqual(dx)
  })

  it('has the gradients that central differences give', () => {
    // No bias: the norm takes it away again, and a gradient of zero has no relative error.
    const conv = new nn.Conv2d(2, 2, 3, { padding: 1, bias: false, ...float64 })
    const block = new nn.Sequential(conv, new BatchNorm2d(2, float64))
    expectGradients(
      new nn.Sequential(new nn.Residual(block), new nn.Flatten(), new nn.Linear(18, 2, float64)),
      [2, 2, 3, 3],
    )
  })

  it('hands gradients through time back through single steps', () => {
    const make = () => new nn.Sequential(new nn.LIFNode({ vThreshold: 0.3 }), new nn.Flatten())
    const [single, multi] = [make(), make()]
    functional.setStepMode(multi, 'm')
    const x = noisy(1, [2, 3, 4])
    const dy = noisy(2, [2, 3, 4])
    multi.forward(x)
    const want = numbers(multi.backward(dy))
    const part = (value: Tensor, t: number) =>
      tensor(value.toFloat64Array().slice(t * 12, (t + 1) * 12), [3, 4])
    single.forward(part(x, 0))
    single.forward(part(x, 1))
    const late = numbers(single.backward(part(dy, 1)))
    const early = numbers(single.backward(part(dy, 0)))
    expect([...early, ...late]).toEqual(want)
  })

  it('lets the gradient pass through a frozen layer', () => {
    const frozen = new BatchNorm2d(2, float64)
    const net = new nn.Sequential(new nn.Conv2d(2, 2, 1, float64), frozen)
    frozen.eval()
    net.forward(noisy(1, [2, 2, 3, 3]))
    net.backward(noisy(2, [2, 2, 3, 3]))
    expect(net.pendingForwards).toBe(0)
  })
})

describe('tensors between modules', () => {
  class Keeps extends Module {
    readonly seen: Tensor[] = []
    protected override computeForward(x: Tensor): Tensor {
      this.seen.push(x)
      return x
    }
    protected override computeBackward(dy: Tensor): Tensor {
      this.seen.push(dy)
      return dy
    }
  }

  const linear = () => new nn.Linear(2, 2, float64)
  const run = (net: Module) => {
    const [x, dy] = [noisy(1, [3, 2]), noisy(2, [3, 2])]
    const y = net.forward(x)
    const dx = net.backward(dy)
    return [x, dy, y, dx]
  }

  it('stay for whoever has seen them: callers and modules of users', () => {
    const keeps = [new Keeps(), new Keeps(), new Keeps()] as const
    const inner = new nn.Residual(new nn.Sequential(keeps[1], linear()))
    const outer = run(new nn.Sequential(keeps[0], linear(), inner, new nn.Sequential(), linear(), keeps[2]))
    for (const value of [...outer, ...keeps.flatMap(({ seen }) => seen)]) expect(value.isDisposed).toBe(false)
    for (const value of run(new nn.Sequential(new nn.Sequential(), linear())))
      expect(value.isDisposed).toBe(false)
    for (const value of run(new nn.Residual(new nn.Sequential()))) expect(value.isDisposed).toBe(false)
  })

  it('stay where a method has been replaced to look at them', () => {
    const watched = linear()
    const seen: Tensor[] = []
    watched.forward = (x) => {
      seen.push(x)
      return Module.prototype.forward.call(watched, x)
    }
    run(new nn.Sequential(linear(), watched, linear()))
    expect(seen.map((value) => value.isDisposed)).toEqual([false])
  })

  it('are freed at once between modules of this library', () => {
    const net = new nn.Sequential(linear(), linear(), new nn.Residual(linear()), linear())
    for (let i = 0; i < 3; i++) run(net).map((value) => value.dispose())
    const before = memoryStats().allocated
    for (let i = 0; i < 50; i++) run(net).map((value) => value.dispose())
    // Less where what earlier tests left has been collected meanwhile.
    expect(memoryStats().allocated).toBeLessThanOrEqual(before)
  })
})

describe('a forward that throws half-way', () => {
  class Fails extends Module {
    fails = false
    protected override computeForward(x: Tensor): Tensor {
      if (this.fails) throw new Error('of its own')
      return x
    }
    protected override computeBackward(dy: Tensor): Tensor {
      return dy
    }
  }

  function build(stepMode: 's' | 'm') {
    const fails = new Fails()
    const layers: Module[] = [
      new nn.Conv2d(2, 2, 3, { padding: 1, ...float64 }),
      new BatchNorm2d(2, float64),
      new nn.LIFNode({ vThreshold: 0.2 }),
      new NeuNorm(2, 4, 4, float64),
      new nn.Residual(new BatchNormThroughTime2d(4, 2, float64)),
      new nn.MaxPool2d(2),
      new nn.Flatten(),
      new nn.Linear(8, 3, float64),
      fails,
    ]
    const net = new nn.Sequential(...layers)
    functional.setStepMode(net, stepMode)
    return { net, fails }
  }

  const shape = (stepMode: 's' | 'm') => (stepMode === 'm' ? [2, 3, 2, 4, 4] : [3, 2, 4, 4])

  it.each(['s', 'm'] as const)(
    'leaves every module as it was and the next calls with the same bits (%s)',
    (mode) => {
      const [seen, twin] = [build(mode), build(mode)]
      twin.net.loadStateDict(seen.net.stateDict())
      const results = [seen, twin].map(({ net, fails }) => {
        net.forward(noisy(1, shape(mode)))
        if (fails === seen.fails) {
          const before = snapshot(net)
          fails.fails = true
          expect(() => net.forward(noisy(2, shape(mode)))).toThrow('of its own')
          expect(snapshot(net)).toEqual(before)
          fails.fails = false
        }
        const y = net.forward(noisy(3, shape(mode)))
        const dx = [net.backward(noisy(4, y.shape)), net.backward(noisy(5, y.shape))].map(numbers)
        return { y: numbers(y), dx, after: snapshot(net) }
      })
      expect(results[0]).toEqual(results[1])
    },
  )

  it('names the module that did not fit', () => {
    const net = new nn.Sequential(new BatchNorm2d(2, float64), new nn.Residual(new nn.MaxPool2d(2)))
    const before = snapshot(net)
    expectCode('ERR_SHAPE', () => net.forward(noisy(1, [2, 2, 4, 4])), 'Sequential: Residual: ')
    expectCode('ERR_SHAPE', () => net.forward(noisy(1, [2, 3, 4, 4])), 'BatchNorm2d: input')
    expect(snapshot(net)).toEqual(before)
  })

  it('is taken back in modules made of modules by anyone', () => {
    class Mine extends Module {
      readonly norm = this.registerModule('norm', new BatchNorm2d(2, float64))
      protected override computeForward(x: Tensor): Tensor {
        this.norm.forward(x)
        throw new Error('afterwards')
      }
      protected override computeBackward(dy: Tensor): Tensor {
        return dy
      }
    }
    const mine = new Mine()
    const before = snapshot(mine)
    expect(() => mine.forward(noisy(1, [2, 2, 3, 3]))).toThrow('afterwards')
    expect(snapshot(mine)).toEqual(before)
  })
})

describe('a backward that cannot be', () => {
  it('is refused before any gradient moves', () => {
    const [first, last] = [new nn.Linear(2, 2, float64), new nn.Linear(2, 2, float64)]
    const net = new nn.Sequential(first, last)
    expectCode('ERR_NO_FORWARD', () => net.backward(noisy(1, [3, 2])), 'Sequential')
    net.forward(noisy(1, [3, 2]))
    first.reset()
    const before = snapshot(net)
    expectCode('ERR_NO_FORWARD', () => net.backward(noisy(1, [3, 2])), 'Linear')
    expect(snapshot(net)).toEqual(before)
    net.reset()
    net.forward(noisy(1, [3, 2]))
    const pending = snapshot(net)
    expectCode('ERR_SHAPE', () => net.backward(noisy(1, [2, 2])), 'Linear: dy')
    expect(snapshot(net)).toEqual(pending)
  })
})

it('a container puts all below it in a step mode, or none', () => {
  const net = new nn.Sequential(new nn.Flatten(), new nn.Residual(new nn.IFNode()))
  net.stepMode = 'm'
  expect(net.modules().map((module) => module.stepMode)).toEqual(['m', 'm', 'm', 'm'])
  const fixed = new nn.Sequential(
    new nn.IFNode({ stepMode: 'm' }),
    new ThresholdDependentBatchNorm2d(1, 1, 2),
  )
  const before = snapshot(fixed)
  expectCode('ERR_STEP_MODE', () => {
    fixed.stepMode = 's'
  })
  expect(snapshot(fixed)).toEqual(before)
})

it('a container refuses what is no module', () => {
  expectCode('ERR_ARGUMENT', () => new nn.Sequential({} as Module), 'Sequential: 0: expected a Module')
})
