// PerStep: a module for every time step.

import { describe, expect, it } from 'vitest'
import {
  BatchNorm2d,
  BatchNormThroughTime2d,
  functional,
  nn,
  noGrad,
  type Tensor,
  ThresholdDependentBatchNorm1d,
  tensor,
} from '../../src/index.js'
import { expectCode, expectGradients, noisy, snapshot } from './support.js'

const float64 = { dtype: 'float64' } as const
const numbers = (value: Tensor) => [...value.toFloat64Array()]
const linears = (count: number) => Array.from({ length: count }, () => new nn.Linear(3, 2, float64))

/** Step `t` of `[T, ...]`. */
function step(value: Tensor, t: number): Tensor {
  const shape = value.shape.slice(1)
  const size = shape.reduce((product, extent) => product * extent, 1)
  return tensor(value.toFloat64Array().slice(t * size, (t + 1) * size), shape)
}

describe('PerStep', () => {
  it('gives step t to module t, in both step modes and across calls and switches', () => {
    const layers = linears(4)
    const net = new nn.PerStep(layers)
    const x = noisy(1, [4, 5, 3])
    const want = layers.flatMap((layer, t) => numbers(layer.forward(step(x, t))))
    functional.resetNet(net)
    const single = [0, 1, 2, 3].flatMap((t) => numbers(net.forward(step(x, t))))
    expect(single).toEqual(want)
    functional.resetNet(net)
    net.stepMode = 'm'
    expect(numbers(net.forward(x))).toEqual(want)
    functional.resetNet(net)
    const first = numbers(net.forward(tensor(x.toFloat64Array().slice(0, 30), [2, 5, 3])))
    net.stepMode = 's'
    expect([...first, ...numbers(net.forward(step(x, 2)))]).toEqual(want.slice(0, 30))
    functional.setStepMode(net, 'm')
    expect(numbers(net.forward(tensor(x.toFloat64Array().slice(45), [1, 5, 3])))).toEqual(want.slice(30))
  })

  it('hands out a backward per forward by vjp, in any order, with nothing left pending', () => {
    const net = new nn.PerStep(linears(2), { stepMode: 'm', cyclic: true })
    const [x, other, dy] = [noisy(3, [2, 5, 3]), noisy(4, [2, 5, 3]), noisy(5, [2, 5, 2])]
    net.forward(x)
    const want = numbers(net.backward(dy))
    const grads = net.parameters().map(({ grad }) => numbers(grad!))
    net.zeroGrad()
    const [first, second] = [net.vjp(x), net.vjp(other)]
    expect(net.pendingForwards).toBe(0)
    expect(numbers(first.backward(dy))).toEqual(want)
    expect(net.parameters().map(({ grad }) => numbers(grad!))).toEqual(grads)
    second.backward(dy)
    expectCode('ERR_NO_FORWARD', () => net.backward(dy))
  })

  it('names what is in it by step, and can be walked', () => {
    const layers = linears(2)
    const net = new nn.PerStep(layers)
    expect(Object.keys(net.stateDict())).toEqual(['0.weight', '0.bias', '1.weight', '1.bias'])
    expect([...net]).toEqual(layers)
    expect([net.T, net.at(-1) === layers[1], net.at(2)]).toEqual([2, true, undefined])
  })

  it('takes modules of either step mode', () => {
    const norm = () => new ThresholdDependentBatchNorm1d(1, 1, 3, float64)
    const x = noisy(1, [2, 5, 3])
    const want = [0, 1].flatMap((t) =>
      numbers(norm().forward(tensor(step(x, t).toFloat64Array(), [1, 5, 3]))),
    )
    const net = new nn.PerStep([norm(), norm()])
    expect([0, 1].flatMap((t) => numbers(net.forward(step(x, t))))).toEqual(want)
    const multi = new nn.PerStep([norm(), norm()], { stepMode: 'm' })
    expect(numbers(multi.forward(x))).toEqual(want)
  })

  it('throws ERR_TIME_STEP past the last step until it is reset, having changed nothing', () => {
    const net = new nn.PerStep(linears(2))
    const x = noisy(1, [5, 3])
    net.forward(x)
    const outer = new nn.Sequential(new nn.Identity(), net)
    functional.setStepMode(outer, 'm')
    const before = snapshot(outer)
    expectCode('ERR_TIME_STEP', () => outer.forward(noisy(1, [2, 5, 3])), 'steps 1..3', 'T = 2', 'reset()')
    expect(snapshot(outer)).toEqual(before)
    functional.setStepMode(outer, 's')
    outer.forward(x)
    expectCode('ERR_TIME_STEP', () => outer.forward(x), 'T = 2')
    outer.reset()
    expect(numbers(outer.forward(x))).toEqual(numbers((net.at(0) as nn.Linear).forward(x)))
  })

  it('goes back to the index it had where a later module throws', () => {
    const net = new nn.PerStep(linears(2))
    const outer = new nn.Sequential(net, new nn.Linear(9, 1, float64))
    const x = noisy(1, [5, 3])
    for (let call = 0; call < 3; call++) expectCode('ERR_SHAPE', () => outer.forward(x))
    expect(numbers(net.forward(x))).toEqual(numbers((net.at(0) as nn.Linear).forward(x)))
  })

  it('begins again after the last step where it is cyclic', () => {
    const net = new nn.PerStep(linears(2), { cyclic: true })
    const x = noisy(1, [2, 5, 3])
    const want = [0, 1].flatMap((t) => numbers(net.forward(step(x, t))))
    expect([0, 1].flatMap((t) => numbers(net.forward(step(x, t))))).toEqual(want)
    net.stepMode = 'm'
    for (let call = 0; call < 2; call++) expect(numbers(net.forward(x))).toEqual(want)
    expectCode('ERR_TIME_STEP', () => net.forward(noisy(1, [1, 5, 3])), 'T = 2', 'got 1')
    net.stepMode = 's'
    net.forward(step(x, 0))
    net.stepMode = 'm'
    expectCode('ERR_TIME_STEP', () => net.forward(x), 'from step 1 on')
  })

  it('has the gradients that central differences give', () => {
    const conv = () => new nn.Conv2d(2, 2, 1, { bias: false, ...float64 })
    const block = () => new nn.Sequential(conv(), new BatchNorm2d(2, float64))
    expectGradients(new nn.PerStep([block(), block(), block()], { stepMode: 'm' }), [3, 2, 2, 2, 3])
  })

  it('gives single steps the gradients of all steps at once', () => {
    const layers = linears(2)
    const x = noisy(1, [2, 5, 3])
    const dy = noisy(2, [2, 5, 2])
    const net = new nn.PerStep(layers, { stepMode: 'm' })
    net.forward(x)
    expectCode('ERR_SHAPE', () => net.backward(noisy(2, [1, 5, 2])), 'dy', '[2, 5, 2]')
    // The form of the forward counts, not the mode at the time of the backward.
    net.stepMode = 's'
    const dx = numbers(net.backward(dy))
    const grads = layers.map(({ weight }) => numbers(weight.grad as Tensor))
    net.zeroGrad()
    net.reset()
    for (const t of [0, 1]) net.forward(step(x, t))
    const late = numbers(net.backward(step(dy, 1)))
    expect([...numbers(net.backward(step(dy, 0))), ...late]).toEqual(dx)
    expect(layers.map(({ weight }) => numbers(weight.grad as Tensor))).toEqual(grads)
    expectCode('ERR_NO_FORWARD', () => net.backward(step(dy, 0)))
  })

  it('refuses nothing to step through, and outputs that do not fit together', () => {
    expectCode('ERR_ARGUMENT', () => new nn.PerStep([]), 'modules')
    const net = new nn.PerStep([new nn.Linear(3, 2, float64), new nn.Linear(3, 4, float64)], {
      stepMode: 'm',
    })
    expectCode('ERR_SHAPE', () => net.forward(noisy(1, [2, 5, 3])))
    expectCode('ERR_SHAPE', () => net.forward(tensor([], [0, 5, 3], float64)), '[T, N, ...]')
    expect(net.pendingForwards + net.modules().reduce((sum, below) => sum + below.pendingForwards, 0)).toBe(0)
  })

  it('is what BNTT is, made of batch norms without bias', () => {
    const bntt = new BatchNormThroughTime2d(3, 2, { stepMode: 'm', ...float64 })
    const norms = Array.from({ length: 3 }, () => new BatchNorm2d(2, float64))
    const net = new nn.PerStep(norms, { stepMode: 'm' })
    const x = noisy(1, [3, 4, 2, 2, 2])
    expect(numbers(net.forward(x))).toEqual(numbers(bntt.forward(x)))
    const [a, b] = [net, bntt].map((layer) => {
      layer.eval().reset()
      return noGrad(() => numbers(layer.forward(x)))
    })
    expect(a).toEqual(b)
  })
})

describe('Identity', () => {
  it('returns what it is given, and keeps nothing', () => {
    const layer = new nn.Identity()
    const x = noisy(1, [2, 3])
    expect(layer.forward(x)).toBe(x)
    expect(layer.backward(x)).toBe(x)
    expect([Object.keys(layer.stateDict()), layer.pendingForwards]).toEqual([[], 0])
  })
})
