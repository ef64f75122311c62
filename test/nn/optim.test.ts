// Optimisers against PyTorch's update rules written out in float64.

import { describe, expect, it } from 'vitest'
import { nn, optim, type Parameter, type Tensor, tensor } from '../../src/index.js'
import { expectClose, expectCode, noisy, STEP_TOLERANCE } from './support.js'

type Real = 'float64' | 'float32'

const SHAPES = [[3, 4], [7]]
const STEPS = 5

/** Parameters of a linear layer with given values: the public way to get some. */
function parameters(dtype: Real = 'float64'): Parameter[] {
  return SHAPES.map((shape, index) => {
    const layer = new nn.Linear(shape.at(-1)!, shape.length > 1 ? shape[0]! : 1, { dtype, bias: false })
    const values = noisy(index + 1, layer.weight.shape, dtype)
    layer.weight.copy_(values)
    return layer.weight
  })
}

const setGrads = (list: readonly Parameter[], step: number) => {
  for (const [index, parameter] of list.entries()) {
    parameter.grad = noisy(100 * step + index + 10, parameter.shape, parameter.dtype as Real)
  }
}

const numbers = (value: Tensor) => value.toFloat64Array()

interface Rule {
  lr: number
  momentum?: number
  dampening?: number
  nesterov?: boolean
  betas?: [number, number]
  eps?: number
  weightDecay?: number
}

/** One parameter's values after STEPS steps of SGD. */
function sgd(p: Float64Array, gradient: (step: number) => Float64Array, rule: Rule): Float64Array {
  const { lr, momentum = 0, dampening = 0, nesterov = false, weightDecay = 0 } = rule
  const buffer = new Float64Array(p.length)
  for (let step = 1; step <= STEPS; step++) {
    const grad = gradient(step)
    for (const [i, value] of p.entries()) {
      const g = grad[i]! + weightDecay * value
      buffer[i] = step === 1 ? g : momentum * buffer[i]! + (1 - dampening) * g
      const direction = momentum === 0 ? g : nesterov ? g + momentum * buffer[i]! : buffer[i]!
      p[i] = value - lr * direction
    }
  }
  return p
}

function adam(
  p: Float64Array,
  gradient: (step: number) => Float64Array,
  rule: Rule,
  isW: boolean,
): Float64Array {
  const { lr, betas = [0.9, 0.999], eps = 1e-8, weightDecay = isW ? 0.01 : 0 } = rule
  const m = new Float64Array(p.length)
  const v = new Float64Array(p.length)
  for (let step = 1; step <= STEPS; step++) {
    const grad = gradient(step)
    for (const [i, value] of p.entries()) {
      const g = isW ? grad[i]! : grad[i]! + weightDecay * value
      const decayed = isW ? value * (1 - lr * weightDecay) : value
      m[i] = betas[0] * m[i]! + (1 - betas[0]) * g
      v[i] = betas[1] * v[i]! + (1 - betas[1]) * g * g
      const denominator = Math.sqrt(v[i]! / (1 - betas[1] ** step)) + eps
      p[i] = decayed - (lr * (m[i]! / (1 - betas[0] ** step))) / denominator
    }
  }
  return p
}

const RULES: [string, Rule][] = [
  ['SGD', { lr: 0.1 }],
  ['SGD', { lr: 0.1, weightDecay: 0.2 }],
  ['SGD', { lr: 0.1, momentum: 0.9, dampening: 0.25, weightDecay: 0.01 }],
  ['SGD', { lr: 0.1, momentum: 0.8, nesterov: true, weightDecay: 0.1 }],
  ['Adam', { lr: 0.01 }],
  ['Adam', { lr: 0.05, betas: [0.7, 0.9], eps: 1e-3, weightDecay: 0.3 }],
  ['AdamW', { lr: 0.01 }],
  ['AdamW', { lr: 0.05, betas: [0.7, 0.9], eps: 1e-3, weightDecay: 0.3 }],
]

const create = (name: string, list: Iterable<Parameter>, rule: Rule): optim.Optimizer =>
  new ({ SGD: optim.SGD, Adam: optim.Adam, AdamW: optim.AdamW })[name]!(list, rule)

describe.each(RULES)('%s %j', (name, rule) => {
  it.each(['float64', 'float32'] as const)('follows the rule of PyTorch in %s', (dtype) => {
    const list = parameters(dtype)
    const start = list.map(numbers)
    const optimizer = create(name, list, rule)
    for (let step = 1; step <= STEPS; step++) {
      setGrads(list, step)
      optimizer.step()
    }
    for (const [index, parameter] of list.entries()) {
      const gradient = (step: number) =>
        numbers(noisy(100 * step + index + 10, parameter.shape, parameter.dtype as Real))
      const want =
        name === 'SGD'
          ? sgd(start[index]!, gradient, rule)
          : adam(start[index]!, gradient, rule, name === 'AdamW')
      expectClose(`parameter ${index}`, numbers(parameter), want, STEP_TOLERANCE[dtype])
    }
  })

  it('goes on with the same bits from a state dict', () => {
    const [straight, resumed] = [parameters(), parameters()]
    const first = create(name, straight, rule)
    const before = create(name, resumed, rule)
    for (const [list, optimizer] of [
      [straight, first],
      [resumed, before],
    ] as const) {
      setGrads(list, 1)
      optimizer.step()
    }
    const after = create(name, resumed, { ...rule, lr: 9 })
    after.loadStateDict(before.stateDict())
    expect(after.lr).toBe(rule.lr)
    for (const [list, optimizer] of [
      [straight, first],
      [resumed, after],
    ] as const) {
      setGrads(list, 2)
      optimizer.step()
    }
    expect(resumed.map(numbers)).toEqual(straight.map(numbers))
  })
})

it('a parameter without a gradient stays, and counts no step', () => {
  const list = parameters()
  const start = numbers(list[1]!)
  const optimizer = new optim.Adam(list, { weightDecay: 0.5 })
  list[0]!.grad = noisy(1, list[0]!.shape)
  optimizer.step()
  expect(numbers(list[1]!)).toEqual(start)
  expect(Object.keys(optimizer.stateDict())).toEqual(['lr', '0.step', '0.exp_avg', '0.exp_avg_sq'])
  optimizer.zeroGrad()
  expect(list[0]!.grad).toBeNull()
})

it('a parameter named twice is stepped once', () => {
  const [a] = parameters()
  const start = numbers(a!)
  a!.grad = tensor(new Float64Array(a!.size).fill(1), a!.shape)
  new optim.SGD([a!, a!], { lr: 0.5 }).step()
  expect(numbers(a!)).toEqual(start.map((value) => value - 0.5))
})

it('a step that throws has moved nothing', () => {
  for (const name of ['SGD', 'Adam']) {
    const list = parameters()
    const optimizer = create(name, list, { lr: 0.1, ...(name === 'SGD' ? { momentum: 0.9 } : {}) })
    setGrads(list, 1)
    optimizer.step()
    setGrads(list, 2)
    const state = () => Object.entries(optimizer.stateDict()).map(([key, value]) => [key, numbers(value)])
    const [values, before] = [numbers(list[0]!), state()]
    // A gradient cannot be the parameter itself: the step would read what it writes.
    list[1]!.grad = list[1]!.reshape(list[1]!.shape)
    expectCode('ERR_ARGUMENT', () => optimizer.step(), `${name}: step`, 'memory of its own')
    expect(numbers(list[0]!)).toEqual(values)
    expect(state()).toEqual(before)
  }
})

it('a state dict that does not fit is refused and changes nothing', () => {
  const list = parameters()
  const optimizer = new optim.SGD(list, { lr: 0.1, momentum: 0.9 })
  setGrads(list, 1)
  optimizer.step()
  const good = optimizer.stateDict()
  const state = () => Object.entries(optimizer.stateDict()).map(([key, value]) => [key, numbers(value)])
  const before = state()
  const { lr: _, ...withoutLr } = good
  for (const [dict, word] of [
    [withoutLr, 'missing key: lr'],
    [{ ...good, lr: tensor([1], []), '2.step': good.lr! }, 'unexpected keys: 2.step'],
    [
      { ...good, lr: tensor([1], []), '1.momentum_buffer': noisy(1, [2]) },
      '1.momentum_buffer: expected shape',
    ],
    [{ ...good, '0.step': tensor([0], []) }, 'unexpected keys: 0.step'],
  ] as const) {
    expectCode(
      'ERR_STATE_DICT',
      () => optimizer.loadStateDict(dict as Record<string, Tensor>),
      'SGD: loadStateDict',
      word,
    )
    expect(state()).toEqual(before)
  }
})

it('the cosine schedule goes from the initial rate to etaMin', () => {
  const optimizer = new optim.SGD(parameters(), { lr: 0.8 })
  const schedule = new optim.CosineAnnealingLR(optimizer, { tMax: 4, etaMin: 0.2 })
  const rates = Array.from({ length: 4 }, () => {
    schedule.step()
    return optimizer.lr
  })
  const want = [1, 2, 3, 4].map((n) => 0.2 + 0.3 * (1 + Math.cos((Math.PI * n) / 4)))
  expectClose('lr', Float64Array.from(rates), want, 1e-15)
  expect(schedule.lastEpoch).toBe(4)
})

it('an optimiser refuses impossible arguments by name', () => {
  const list = parameters()
  expectCode('ERR_ARGUMENT', () => new optim.SGD([]), 'SGD: parameters')
  expectCode('ERR_ARGUMENT', () => new optim.SGD([noisy(1, [2]) as Parameter]), 'parameters')
  expectCode('ERR_ARGUMENT', () => new optim.SGD(list, { lr: -1 }), 'SGD: lr')
  expectCode('ERR_ARGUMENT', () => new optim.SGD(list, { nesterov: true }), 'SGD: nesterov')
  expectCode('ERR_ARGUMENT', () => new optim.SGD([]), 'got []; ', 'registerModule')
  expectCode('ERR_ARGUMENT', () => new optim.Adam(list, { betas: [0.9, 1] }), 'betas')
  expect(new optim.AdamW(list).weightDecay).toBe(0.01)
})
