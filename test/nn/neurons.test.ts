// Neurons: state between calls and gradients through it.

import { describe, expect, it } from 'vitest'
import { nn, noGrad, type Tensor, tensor } from '../../src/index.js'
import { expectCode, noise, noisy, snapshot } from './support.js'

const T = 4
const SHAPE = [3, 5]
const SIZE = 15

type Neuron = nn.IFNode | nn.LIFNode

const NEURONS: [string, (stepMode: 's' | 'm') => Neuron][] = [
  ['IFNode', (stepMode) => new nn.IFNode({ vThreshold: 0.4, stepMode })],
  ['LIFNode', (stepMode) => new nn.LIFNode({ vThreshold: 0.3, tau: 1.5, surrogate: 'atan', stepMode })],
  [
    'LIFNode with a soft reset',
    (stepMode) => new nn.LIFNode({ vThreshold: 0.3, vReset: null, decayInput: false, stepMode }),
  ],
]

const input = (seed: number) => noise(seed, T * SIZE).map((x) => x + 0.4)
const steps = (values: Float64Array, from: number, to: number): Tensor =>
  tensor(values.slice(from * SIZE, to * SIZE), [to - from, ...SHAPE])
const step = (values: Float64Array, t: number): Tensor =>
  tensor(values.slice(t * SIZE, (t + 1) * SIZE), SHAPE)
const numbers = (value: Tensor | null) => [...(value?.toFloat64Array() ?? [])]

describe.each(NEURONS)('%s', (_, make) => {
  const x = input(1)
  const dy = noise(2, T * SIZE)

  function whole() {
    const neuron = make('m')
    const y = numbers(neuron.forward(steps(x, 0, T)))
    return { y, v: numbers(neuron.v), dx: numbers(neuron.backward(steps(dy, 0, T))) }
  }

  it('fires in some places and not in others', () => {
    const { y } = whole()
    expect(new Set(y)).toEqual(new Set([0, 1]))
  })

  it('gives the bits of all steps at once when taken step by step and back in reverse', () => {
    const neuron = make('s')
    const y = Array.from({ length: T }, (_, t) => numbers(neuron.forward(step(x, t))))
    const v = numbers(neuron.v)
    const dx: number[][] = []
    for (let t = T - 1; t >= 0; t--) dx[t] = numbers(neuron.backward(step(dy, t)))
    expect({ y: y.flat(), v, dx: dx.flat() }).toEqual(whole())
  })

  it('gives the bits of all steps at once when these are split over calls', () => {
    const neuron = make('m')
    const y = [numbers(neuron.forward(steps(x, 0, 1))), numbers(neuron.forward(steps(x, 1, T)))]
    const v = numbers(neuron.v)
    const late = numbers(neuron.backward(steps(dy, 1, T)))
    const early = numbers(neuron.backward(steps(dy, 0, 1)))
    expect({ y: y.flat(), v, dx: [...early, ...late] }).toEqual(whole())
  })

  it('lets no gradient through detach, and keeps the voltage', () => {
    const cut = make('s')
    const alone = make('s')
    cut.forward(step(x, 0))
    alone.forward(step(x, 0))
    cut.detach()
    const v = numbers(cut.v)
    cut.forward(step(x, 1))
    expect(v).toEqual(numbers(alone.v))
    cut.backward(step(dy, 1))
    expect(numbers(cut.backward(step(dy, 0)))).toEqual(numbers(alone.backward(step(dy, 0))))
  })

  it('starts anew after reset', () => {
    const neuron = make('m')
    neuron.forward(tensor(input(9), [T, ...SHAPE]))
    neuron.reset()
    expect(neuron.v).toBeNull()
    expect(neuron.pendingForwards).toBe(0)
    expect(numbers(neuron.forward(steps(x, 0, T)))).toEqual(whole().y)
  })

  it('refuses another shape than its state and is as it was', () => {
    const neuron = make('s')
    neuron.forward(step(x, 0))
    const before = snapshot(neuron)
    expectCode('ERR_SHAPE', () => neuron.forward(noisy(1, [2, 5])), 'reset()', '3, 5')
    expectCode('ERR_DTYPE', () => neuron.forward(noisy(1, SHAPE, 'float32')), 'state carried over')
    expectCode('ERR_SHAPE', () => neuron.backward(noisy(1, [2, 5])), 'dy')
    expect(snapshot(neuron)).toEqual(before)
  })

  it('records nothing in evaluation, and its voltage goes on', () => {
    const neuron = make('s').eval()
    for (let t = 0; t < T; t++) neuron.forward(step(x, t))
    expect(neuron.pendingForwards).toBe(0)
    expect(numbers(neuron.v)).toEqual(whole().v)
    expect(numbers(noGrad(() => make('s').forward(step(x, 0))))).toEqual(whole().y.slice(0, SIZE))
  })
})

it('the default surrogate is the sigmoid, as in SpikingJelly', () => {
  const gradient = (options: nn.LIFNodeOptions) => {
    const neuron = new nn.LIFNode(options)
    neuron.forward(noisy(1, SHAPE))
    return numbers(neuron.backward(noisy(2, SHAPE)))
  }
  expect(gradient({})).toEqual(gradient({ surrogate: 'sigmoid' }))
  expect(gradient({})).not.toEqual(gradient({ surrogate: 'atan' }))
})

it('spikes of half inputs are half, the voltage is float32', () => {
  const neuron = new nn.IFNode()
  const y = neuron.forward(tensor([0.5, 1.5], [2], { dtype: 'bfloat16' }))
  expect([y.dtype, ...y.toFloat64Array()]).toEqual(['bfloat16', 0, 1])
  expect(neuron.v?.dtype).toBe('float32')
  neuron.reset()
})

it('constructors refuse impossible arguments by name', () => {
  expectCode('ERR_ARGUMENT', () => new nn.LIFNode({ tau: 1 }), 'LIFNode: tau')
  expectCode('ERR_ARGUMENT', () => new nn.IFNode({ vThreshold: Number.NaN }), 'IFNode: vThreshold')
  expectCode('ERR_ARGUMENT', () => new nn.IFNode({ surrogate: 'relu' as 'atan' }), 'surrogate', 'relu')
})
