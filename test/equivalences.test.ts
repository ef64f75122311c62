// Claims that hold between calls of the public API itself: gradients against central differences of its own forward,
// single steps against all steps at once, split calls against whole ones, sums of gradients against their parts.

import fc from 'fast-check'
import { expect, it } from 'vitest'
import { type Module, NeuNorm, type NormLayer, noGrad, type Tensor, tensor } from '../src/index.js'
import { expectClose, expectSameBits } from './support/compare.js'
import { describeOnDevices } from './support/devices.js'
import { createLayer, inputShape, type LayerOptions, NORM_CLASSES, type NormClass } from './support/layers.js'
import { centralDifferences, dot, normal, sizeOfShape } from './support/numbers.js'
import { differences, random } from './support/tolerances.js'

const EXTENTS = [[3], [2, 3], [2, 1, 3]]
const GRID = { t: 3, n: 2, c: 4 }
const parameters = { numRuns: 25, seed: 20240607 }

function shapeFor(kind: NormClass, stepMode: 's' | 'm'): number[] {
  return inputShape(stepMode, { ...GRID, s: 0 }, EXTENTS[kind.spatial - 1]!)
}

function randomLayer(kind: NormClass, options: Partial<LayerOptions> = {}): NormLayer {
  const stepMode = kind.stepModes.at(-1)!
  const layer = createLayer(kind, { channels: GRID.c, steps: GRID.t, stepMode, dtype: 'float64', ...options })
  return randomise(layer)
}

/** Parameters and statistics away from their defaults; the same ones for layers of the same names. */
function randomise<M extends Module>(layer: M): M {
  const entries = Object.entries(layer.stateDict()).map(([name, value], i) => {
    if (value.dtype === 'int64') return [name, value] as const
    const values = normal(i + 1, value.size, 1, 0.2).map((v) => (name.endsWith('var') ? v * v + 0.5 : v))
    return [name, tensor(values, value.shape, { dtype: 'float64' })] as const
  })
  layer.loadStateDict(Object.fromEntries(entries))
  return layer
}

const numbers = (value: Tensor | null | undefined) => value?.toFloat64Array() ?? new Float64Array()

function expectSameState(a: Module, b: Module): void {
  const [x, y] = [a.stateDict(), b.stateDict()]
  for (const [name, value] of Object.entries(x)) {
    expectClose(name, numbers(value), numbers(y[name]), random('state', 'float64', numbers(value), 1))
  }
}

function expectSameGrads(a: Module, b: Module): void {
  const others = new Map(b.namedParameters())
  for (const [name, { grad }] of a.namedParameters()) {
    const expected = numbers(others.get(name)?.grad)
    expectClose(`gradient of ${name}`, numbers(grad), expected, random('grad', 'float64', expected, 10))
  }
}

describeOnDevices('backward agrees with central differences of forward', (device) => {
  /** Checks dx and every parameter gradient of one recorded forward of `layer`. */
  function check(layer: Module, shape: number[]): void {
    const x = normal(50, sizeOfShape(shape), 0.3, 1.5)
    const dy = normal(51, x.length)
    const input = () => tensor(x, shape, { device })
    // Training moves running statistics, which its output does not depend on.
    const loss = () => {
      layer.reset()
      return noGrad(() => dot(numbers(layer.forward(input())), dy))
    }
    layer.forward(input())
    const dx = numbers(layer.backward(tensor(dy, shape, { device })))
    const expected = centralDifferences(x, loss)
    expectClose('dx', dx, expected, differences(expected, 10))
    for (const [name, parameter] of layer.namedParameters()) {
      const values = numbers(parameter)
      const load = () =>
        layer.loadStateDict({ [name]: tensor(values, parameter.shape, { device }) }, { strict: false })
      const gradient = centralDifferences(values, () => {
        load()
        return loss()
      })
      load()
      expectClose(`gradient of ${name}`, numbers(parameter.grad), gradient, differences(gradient, 10))
    }
  }

  for (const kind of NORM_CLASSES) {
    it(`for ${kind.name} in training`, () =>
      check(randomLayer(kind, { device }), shapeFor(kind, kind.stepModes.at(-1)!)))
  }
  for (const sharedAcrossChannels of [false, true]) {
    it(`for NeuNorm${sharedAcrossChannels ? ' with a shared weight' : ''}`, () => {
      const options = { k: 0.6, sharedAcrossChannels, stepMode: 'm', dtype: 'float64', device } as const
      check(randomise(new NeuNorm(4, 2, 3, options)), [3, 2, 4, 2, 3])
    })
  }
})

describeOnDevices('T single steps equal one multi-step call', (device) => {
  /** Runs x once in 'm' and once step by step, and compares everything that came out. */
  function check(whole: Module, single: Module, stepShape: number[]): void {
    const size = sizeOfShape(stepShape)
    const x = normal(60, GRID.t * size, 0.3, 1.5)
    const dy = normal(61, x.length)
    const step = (values: Float64Array, t: number) =>
      tensor(values.slice(t * size, (t + 1) * size), stepShape, { device })
    const y = numbers(whole.forward(tensor(x, [GRID.t, ...stepShape], { device })))
    const steps = [...Array(GRID.t).keys()]
    const outputs = steps.map((t) => numbers(single.forward(step(x, t))))
    for (const t of steps) {
      const expected = y.slice(t * size, (t + 1) * size)
      expectClose(`y of step ${t}`, outputs[t]!, expected, random('y', 'float64', expected))
    }
    if (whole.pendingForwards > 0) {
      const dx = numbers(whole.backward(tensor(dy, [GRID.t, ...stepShape], { device })))
      for (const t of steps.reverse()) {
        const expected = dx.slice(t * size, (t + 1) * size)
        expectClose(
          `dx of step ${t}`,
          numbers(single.backward(step(dy, t))),
          expected,
          random('dx', 'float64', expected, 5),
        )
      }
    }
    expectSameState(whole, single)
    expectSameGrads(whole, single)
  }

  for (const kind of NORM_CLASSES.filter(({ stepModes }) => stepModes.length > 1)) {
    const pair = () =>
      (['m', 's'] as const).map((stepMode) => randomLayer(kind, { stepMode, device })) as [
        NormLayer,
        NormLayer,
      ]
    it(`for ${kind.name} in eval, where no step moves the statistics`, () => {
      const [whole, single] = pair()
      check(whole.eval(), single.eval(), shapeFor(kind, 's'))
    })
    if (kind.family !== 'throughTime') continue
    it(`for ${kind.name} in training, where every step has statistics of its own`, () => {
      const [whole, single] = pair()
      check(whole, single, shapeFor(kind, 's'))
    })
  }

  it('but not for BatchNorm2d in training: one update over T·N against T updates', () => {
    const layers = (['m', 's'] as const).map((stepMode) =>
      randomLayer(NORM_CLASSES[1]!, { stepMode, device }),
    )
    const [whole, single] = layers as [NormLayer, NormLayer]
    const x = tensor(normal(1, 72), [3, 2, 4, 3, 1], { device })
    whole.forward(x)
    for (let t = 0; t < 3; t++) single.forward(tensor(normal(t, 24), [2, 4, 3, 1], { device }))
    expect(whole.stateDict().num_batches_tracked!.item()).toBe(1)
    expect(single.stateDict().num_batches_tracked!.item()).toBe(3)
  })

  for (const sharedAcrossChannels of [false, true]) {
    it(`for NeuNorm${sharedAcrossChannels ? ' with a shared weight' : ''}, the state carrying over`, () => {
      const [whole, single] = (['m', 's'] as const).map((stepMode) =>
        randomise(new NeuNorm(4, 2, 3, { k: 0.7, sharedAcrossChannels, stepMode, dtype: 'float64', device })),
      ) as [NeuNorm, NeuNorm]
      check(whole, single, [2, 4, 2, 3])
    })
  }
})

/** A partition of T steps into calls, each in one of the step modes. */
const partition = fc.array(fc.record({ steps: fc.integer({ min: 1, max: 3 }), multi: fc.boolean() }), {
  minLength: 1,
  maxLength: 6,
})

describeOnDevices('calls split over time equal one call over all of it', (device) => {
  type Call = { steps: number; multi: boolean }

  function check(create: () => Module, calls: Call[], stepShape: number[]): void {
    const size = sizeOfShape(stepShape)
    const total = calls.reduce((sum, { steps, multi }) => sum + (multi ? steps : 1), 0)
    const x = normal(70, total * size)
    const dy = normal(71, total * size)
    const [whole, split] = [create(), create()]
    whole.stepMode = 'm'
    const y = numbers(whole.forward(tensor(x, [total, ...stepShape], { device })))
    const dx = numbers(whole.backward(tensor(dy, [total, ...stepShape], { device })))
    let first = 0
    const parts = calls.map(({ steps, multi }) => {
      const count = multi ? steps : 1
      const range = [first * size, (first + count) * size] as const
      first += count
      return { multi, range, shape: multi ? [count, ...stepShape] : stepShape }
    })
    for (const { multi, range, shape } of parts) {
      split.stepMode = multi ? 'm' : 's'
      const expected = y.slice(...range)
      const got = numbers(split.forward(tensor(x.slice(...range), shape, { device })))
      expectClose(`y of steps ${range}`, got, expected, random('y', 'float64', expected, 1))
    }
    for (const { range, shape } of parts.reverse()) {
      const expected = dx.slice(...range)
      const got = numbers(split.backward(tensor(dy.slice(...range), shape, { device })))
      expectClose(`dx of steps ${range}`, got, expected, random('dx', 'float64', expected, 5))
    }
    expectSameState(whole, split)
    expectSameGrads(whole, split)
    expect(split.pendingForwards).toBe(0)
  }

  it('for BNTT, whatever the step mode of each call', () => {
    const run = (calls: Call[]) => {
      const steps = calls.reduce((sum, call) => sum + (call.multi ? call.steps : 1), 0)
      const kind = NORM_CLASSES.find(({ name }) => name === 'BatchNormThroughTime2d')!
      check(() => randomLayer(kind, { steps, device }), calls, [3, 4, 2, 2])
    }
    fc.assert(fc.property(partition, run), parameters)
  })

  it('for NeuNorm, gradients flowing back through every call', () => {
    const create = () => randomise(new NeuNorm(3, 2, 2, { k: 0.8, dtype: 'float64', device }))
    fc.assert(
      fc.property(partition, (calls) => check(create, calls, [2, 3, 2, 2])),
      parameters,
    )
  })
})

describeOnDevices('parameter gradients', (device) => {
  for (const kind of NORM_CLASSES) {
    it(`of ${kind.name} add up over backwards until zeroGrad`, () => {
      const shape = shapeFor(kind, kind.stepModes.at(-1)!)
      const layer = randomLayer(kind, { device })
      const inputs = [0, 1].map((i) => tensor(normal(80 + i, sizeOfShape(shape)), shape, { device }))
      const dy = tensor(normal(90, sizeOfShape(shape)), shape, { device })
      const gradients = (which: number[]) => {
        layer.zeroGrad()
        for (const i of which) {
          layer.reset()
          layer.forward(inputs[i]!)
          layer.backward(dy)
        }
        return layer.parameters().map(({ grad }) => numbers(grad))
      }
      const [first, second, both] = [gradients([0]), gradients([1]), gradients([0, 1])]
      both.forEach((sum, i) => {
        const expected = first[i]!.map((value, j) => value + second[i]![j]!)
        expectClose('sum', sum, expected, random('grad', 'float64', expected, 10))
      })
    })
  }

  it('and outputs have the same bits when the same calls are made again', () => {
    for (const kind of NORM_CLASSES) {
      const shape = shapeFor(kind, kind.stepModes.at(-1)!)
      const run = () => {
        const layer = randomLayer(kind, { dtype: 'float32', device })
        const x = tensor(normal(1, sizeOfShape(shape)), shape, { dtype: 'float32', device })
        const y = layer.forward(x)
        return [y, layer.backward(x), ...layer.parameters().map(({ grad }) => grad!)]
      }
      const [once, again] = [run(), run()]
      once.forEach((value, i) => {
        expectSameBits(`${kind.name} ${i}`, again[i]!, value)
      })
    }
  })
})
