// Layers of the training kit that keep no state.

import { describe, expect, it } from 'vitest'
import {
  enableGrad,
  type Module,
  manualSeed,
  nn,
  noGrad,
  ones,
  Parameter,
  tensor,
  zeros,
} from '../../src/index.js'
import { expectCode, expectGradients, noise, noisy, snapshot } from './support.js'

const float64 = { dtype: 'float64' } as const

type Layer = [name: string, layer: (stepMode: 's' | 'm') => Module, shape: number[]]

const LAYERS: Layer[] = [
  ['Conv2d', (stepMode) => new nn.Conv2d(2, 3, 3, { padding: 1, stepMode, ...float64 }), [3, 2, 4, 5]],
  [
    'Conv2d with unequal extents',
    (stepMode) =>
      new nn.Conv2d(2, 3, [2, 3], { stride: [2, 1], padding: [0, 2], bias: false, stepMode, ...float64 }),
    [3, 2, 5, 4],
  ],
  ['Linear', (stepMode) => new nn.Linear(4, 3, { stepMode, ...float64 }), [5, 4]],
  [
    'AvgPool2d',
    (stepMode) => new nn.AvgPool2d([3, 2], { stride: [1, 2], padding: 1, stepMode }),
    [2, 3, 4, 6],
  ],
  ['MaxPool2d', (stepMode) => new nn.MaxPool2d(2, { stride: 1, stepMode }), [2, 3, 4, 5]],
  ['Flatten', (stepMode) => new nn.Flatten({ stepMode }), [2, 3, 4, 5]],
]

describe.each(LAYERS)('%s', (_, make, shape) => {
  it('has the gradients that central differences of its forward give, in both step modes', () => {
    expectGradients(make('s'), shape)
    expectGradients(make('m'), [2, ...shape])
  })

  it('gives the same bits for all steps at once as step by step', () => {
    manualSeed(1)
    const multi = make('m')
    manualSeed(1)
    const single = make('s')
    const x = noisy(5, [3, ...shape])
    const y = multi.forward(x).toFloat64Array()
    const size = x.size / 3
    for (let t = 0; t < 3; t++) {
      const step = single.forward(tensor(x.toFloat64Array().slice(t * size, (t + 1) * size), shape))
      expect(step.toFloat64Array()).toEqual(y.slice(t * step.size, (t + 1) * step.size))
    }
    expect(single.pendingForwards).toBe(3)
  })

  it('is recorded in training mode and within enableGrad, and nowhere else', () => {
    const layer = make('s').eval()
    const x = noisy(1, shape)
    layer.forward(x)
    expect(layer.pendingForwards).toBe(0)
    enableGrad(() => layer.forward(x))
    expect(layer.pendingForwards).toBe(1)
    noGrad(() => layer.train().forward(x))
    expect(layer.pendingForwards).toBe(1)
    layer.reset()
    expect(layer.pendingForwards).toBe(0)
  })

  it('refuses what does not fit and is as it was', () => {
    const layer = make('s')
    layer.forward(noisy(1, shape))
    const before = snapshot(layer)
    const isFlat = layer instanceof nn.Flatten
    if (!isFlat) expectCode('ERR_SHAPE', () => layer.forward(noisy(1, [7])), 'input')
    if (!isFlat) expectCode('ERR_DTYPE', () => layer.forward(zeros(shape, { dtype: 'int64' })), 'int64')
    expectCode('ERR_SHAPE', () => layer.backward(noisy(1, [7])), 'dy')
    expectCode('ERR_SHAPE', () => layer.forward(zeros([])), 'input')
    expect(snapshot(layer)).toEqual(before)
    layer.reset()
    expectCode('ERR_NO_FORWARD', () => layer.backward(noisy(1, [7])), 'backward')
  })
})

it('a weight changed between forward and backward leaves the gradient of the forward that was', () => {
  for (const [layer, shape] of [
    [new nn.Conv2d(2, 3, 2, float64), [2, 2, 4, 4]],
    [new nn.Linear(4, 3, float64), [5, 4]],
  ] as const) {
    const x = noisy(1, shape)
    const dy = noisy(2, layer.forward(x).shape)
    const want = layer.backward(dy).toFloat64Array()
    layer.forward(x)
    layer.weight.copy_(noisy(3, layer.weight.shape))
    expect(layer.backward(dy).toFloat64Array()).toEqual(want)
  }
})

it('weights and biases start uniform within 1/√fan_in, reproducibly', () => {
  manualSeed(3)
  const layer = new nn.Conv2d(8, 40, 5)
  const bound = 1 / Math.sqrt(8 * 25)
  for (const parameter of [layer.weight, layer.bias!]) {
    const values = parameter.toFloat64Array()
    expect(Math.max(...values.map(Math.abs))).toBeLessThanOrEqual(bound)
    expect(Math.max(...values)).toBeGreaterThan(0.9 * bound)
    expect(Math.min(...values)).toBeLessThan(-0.9 * bound)
  }
  manualSeed(3)
  expect(new nn.Conv2d(8, 40, 5).weight.toFloat64Array()).toEqual(layer.weight.toFloat64Array())
})

it('half inputs give half outputs beside float32 parameters and gradients', () => {
  for (const dtype of ['float16', 'bfloat16'] as const) {
    const layer = new nn.Linear(3, 2, { dtype })
    expect(layer.weight.dtype).toBe('float32')
    const y = layer.forward(tensor(noise(1, 6), [2, 3], { dtype }))
    expect(y.dtype).toBe(dtype)
    expect(layer.backward(y).dtype).toBe(dtype)
    expect(layer.weight.grad?.dtype).toBe('float32')
  }
  expectCode('ERR_DTYPE', () => new nn.Linear(3, 2).forward(noisy(1, [2, 3])), 'float64')
})

it('constructors refuse impossible arguments by name', () => {
  expectCode('ERR_ARGUMENT', () => new nn.Conv2d(0, 3, 3), 'Conv2d: inChannels')
  expectCode('ERR_ARGUMENT', () => new nn.Conv2d(2, 3, [3, 1.5]), 'kernelSize', '1.5')
  expectCode('ERR_ARGUMENT', () => new nn.Conv2d(2, 3, 3, { stride: 0 }), 'stride')
  expectCode('ERR_ARGUMENT', () => new nn.MaxPool2d(2, { padding: 2 }), 'MaxPool2d', 'at most half')
  expectCode('ERR_ARGUMENT', () => new nn.Linear(3, -1), 'outFeatures')
  expectCode('ERR_STEP_MODE', () => new nn.Flatten({ stepMode: 'x' as 's' }), 'Flatten')
})

it('weight and bias cannot be replaced by what would be neither trained nor saved', () => {
  for (const layer of [new nn.Linear(2, 2), new nn.Conv2d(1, 2, 1)] as Record<'weight' | 'bias', unknown>[]) {
    for (const key of ['weight', 'bias'] as const) {
      expect(() => {
        layer[key] = new Parameter(ones([2, 2]))
      }).toThrow(key)
    }
  }
})
