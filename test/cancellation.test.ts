// A gradient that is the same everywhere: what is left of the weight's, Σ x̂, is what the mean is off by, as many times as
// there are values. The one golden case of this is of one time step.

import { expect, it } from 'vitest'
import { tensor } from '../src/index.js'
import { expectClose } from './support/compare.js'
import { describeOnDevices } from './support/devices.js'
import { createLayer, NORM_CLASSES } from './support/layers.js'
import { normal, sizeOfShape } from './support/numbers.js'
import { golden } from './support/tolerances.js'

const SHAPES = [
  [4, 8, 4, 4, 4],
  [4, 16, 8, 8, 8],
  [2, 5, 3, 33, 31],
]

describeOnDevices('a gradient that is the same everywhere', (device) => {
  for (const layerClass of NORM_CLASSES.filter(({ spatial }) => spatial === 2)) {
    for (const shape of SHAPES) {
      it(`${layerClass.name} of ${shape}: is none of the weight's`, () => {
        const [steps, , channels] = shape as [number, number, number]
        const layer = createLayer(layerClass, { channels, steps, stepMode: 'm', dtype: 'float32', device })
        const count = sizeOfShape(shape)
        layer.forward(tensor(Float32Array.from(normal(7, count)), shape, { device }))
        layer.backward(tensor(new Float32Array(count).fill(1), shape, { device }))
        const weights = layer.namedParameters().filter(([name]) => name.endsWith('weight'))
        expect(weights.length).toBeGreaterThan(0)
        for (const [name, weight] of weights) {
          const got = weight.grad?.toTypedArray() as Float32Array
          const expected = new Float64Array(got.length)
          expectClose(name, got, expected, golden('grad', 'float32', expected, { dy: 1 }))
        }
      })
    }
  }
})
