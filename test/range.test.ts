// The ends of the range: infinities, means far above the deviation, tensors without values, and V8's heap.

import { spawnSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'
import { enableGrad, type Module, NeuNorm, nn, ones, optim, tensor, zeros } from '../src/index.js'
import { describeOnDevices } from './support/devices.js'
import { createLayer, NORM_CLASSES, type NormClass } from './support/layers.js'

const SPACE = { 1: [4], 2: [2, 2], 3: [1, 2, 2] }
const create = (normClass: NormClass, dtype: 'float64' | 'float32', steps = 2, channels = 3) =>
  createLayer(normClass, { channels, steps, stepMode: 'm', dtype, eps: 1e-12 })

describe('dx in evaluation', () => {
  for (const normClass of NORM_CLASSES) {
    for (const dtype of ['float64', 'float32'] as const) {
      it(`of ${normClass.name} in ${dtype} is finite whatever the input is`, () => {
        const shape = [2, 5, 3, ...SPACE[normClass.spatial]]
        const x = ones(shape, { dtype }).toTypedArray() as Float64Array | Float32Array
        x.set([Number.POSITIVE_INFINITY, Number.NaN, Number.NEGATIVE_INFINITY])
        const layer = create(normClass, dtype).eval()
        enableGrad(() => layer.forward(tensor(x, shape, { dtype })))
        const dx = layer.backward(ones(shape, { dtype })).toTypedArray() as Float64Array | Float32Array
        expect(dx.every((value) => Math.abs(value - 1) < 1e-6)).toBe(true)
      })
    }
  }
})

describeOnDevices('without eps', (device) => {
  for (const normClass of NORM_CLASSES) {
    for (const dtype of ['float64', 'float32', 'float16', 'bfloat16'] as const) {
      it(`a constant channel of ${normClass.name} gives its bias and no gradient in ${dtype}`, () => {
        const shape = [2, 5, 2, ...SPACE[normClass.spatial]]
        const inner = SPACE[normClass.spatial].reduce((product, extent) => product * extent, 1)
        const isConstant = (_: number, i: number) => Math.floor(i / inner) % 2 === 0
        const values = Float64Array.from({ length: 20 * inner }, (_, i) =>
          isConstant(0, i) ? 3 : ((i % 7) - 3) * 2 ** -12,
        )
        const at = { dtype, device }
        const layer = createLayer(normClass, { channels: 2, steps: 2, stepMode: 'm', ...at, eps: 0 })
        const y = layer.forward(tensor(values, shape, at)).toFloat64Array()
        const dy = values.map((_, i) => i % 3)
        const dx = layer.backward(tensor(dy, shape, at)).toFloat64Array()
        expect([...y, ...dx].every(Number.isFinite)).toBe(true)
        expect([...y.filter(isConstant), ...dx.filter(isConstant)].every((value) => value === 0)).toBe(true)
        expect(Math.max(...y)).toBeGreaterThan(1)
      })
    }
  }
})

describe('an input without values', () => {
  const T = 2 ** 40
  const norms = NORM_CLASSES.filter(({ family }) => family === 'batch' || family === 'threshold')
  const layers: [name: string, layer: Module, shape: number[]][] = [
    ...norms.map((normClass): [string, Module, number[]] => [
      normClass.name,
      create(normClass, 'float32'),
      [T, 0, 3, ...SPACE[normClass.spatial]],
    ]),
    ['NeuNorm', new NeuNorm(3, 2, 2, { stepMode: 'm' }), [T, 0, 3, 2, 2]],
    ['IFNode', new nn.IFNode({ stepMode: 'm' }), [T, 0, 3]],
    ['Conv2d', new nn.Conv2d(3, 2, 1, { stepMode: 'm' }), [T, 0, 3, 2, 2]],
    ['Linear', new nn.Linear(3, 2, { stepMode: 'm' }), [T, 0, 3]],
    ['AvgPool2d', new nn.AvgPool2d(2, { stepMode: 'm' }), [T, 0, 3, 2, 2]],
    ['MaxPool2d', new nn.MaxPool2d(2, { stepMode: 'm' }), [T, 0, 3, 2, 2]],
  ]
  for (const [name, layer, shape] of layers) {
    it(`passes ${name} at once, forward and backward, whatever its steps`, () => {
      layer.eval()
      const y = enableGrad(() => layer.forward(zeros(shape)))
      expect([y.shape[0], y.size]).toEqual([T, 0])
      expect(layer.backward(zeros([...y.shape])).shape).toEqual(shape)
      for (const parameter of layer.parameters()) {
        if (parameter.grad)
          expect((parameter.grad.toTypedArray() as Float32Array).every((v) => v === 0)).toBe(true)
      }
    })
  }
})

describe('float64', () => {
  for (const normClass of NORM_CLASSES) {
    it(`does not depend on the mean in ${normClass.name}`, () => {
      const [steps, samples, channels] = [2, 200, 2]
      const shape = [steps, samples, channels, ...SPACE[normClass.spatial]]
      const size = shape.reduce((product, extent) => product * extent)
      const run = (mean: number) => {
        const layer = create(normClass, 'float64', steps, channels)
        // Multiples of 2^-10, which float64 holds beside either mean.
        const x = Float64Array.from({ length: size }, (_, i) => mean + (((i * i * 7919) % 41) - 20) / 1024)
        const dy = Float64Array.from({ length: size }, (_, i) => ((i * 7) % 11 === 0 ? 3 : 0))
        const y = layer.forward(tensor(x, shape, { dtype: 'float64' }))
        const dx = layer.backward(tensor(dy, shape, { dtype: 'float64' }))
        return [y, dx, ...layer.parameters().map(({ grad }) => grad!)].map((t) => t.toFloat64Array())
      }
      const [small, large] = [run(0), run(1e6)]
      for (const [at, expected] of small.entries()) {
        const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 1)
        for (const [i, value] of expected.entries()) {
          expect(Math.abs(value - large[at]![i]!) / largest).toBeLessThan(1e-13)
        }
      }
    })
  }
})

describe('infinities', () => {
  for (const surrogate of ['atan', 'sigmoid'] as const) {
    for (const vReset of [0, null]) {
      for (const detachReset of [false, true]) {
        it(`of a voltage have no gradient: ${surrogate}, vReset ${vReset}, detachReset ${detachReset}`, () => {
          const node = new nn.IFNode({ surrogate, vReset, detachReset })
          const x = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 1]
          node.forward(tensor(x, [1, 3]))
          const dx = node.backward(ones([1, 3])).toTypedArray() as Float32Array
          expect(dx.every(Number.isFinite)).toBe(true)
          expect([...dx.subarray(0, 2)].every((value) => Math.abs(value) < 1e-37)).toBe(true)
        })
      }
    }
  }

  it('of a parameter stay what they are without weight decay', () => {
    for (const make of [optim.SGD, optim.Adam, optim.AdamW]) {
      const layer = new nn.Linear(2, 1, { bias: false })
      layer.loadStateDict({ weight: tensor([Number.POSITIVE_INFINITY, 1], [1, 2]) })
      const parameter = layer.parameters()[0]!
      parameter.grad = tensor([1, 1], [1, 2])
      new make([parameter], { lr: 0.1, weightDecay: 0 }).step()
      expect((parameter.toTypedArray() as Float32Array)[0], make.name).toBe(Number.POSITIVE_INFINITY)
    }
  })
})

it('randperm beyond the heap is ERR_OUT_OF_MEMORY and not the end of the process', () => {
  const program = `
    import { randperm } from './src/index.ts'
    try { randperm(2e7) } catch (error) { console.log(error.code) }
    console.log(randperm(5).length)
  `
  const args = ['--max-old-space-size=100', '--import', 'tsx', '--input-type=module', '-e', program]
  const child = spawnSync(process.execPath, args, { encoding: 'utf8' })
  expect(child.stdout.trim().split('\n')).toEqual(['ERR_OUT_OF_MEMORY', '5'])
})
