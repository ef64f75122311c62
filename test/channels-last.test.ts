// Inputs whose channels come last, [T, N, H, W, C]: every class against the float64 reference, which knows nothing of
// layouts and is given the same numbers in its own order.

import { expect, it } from 'vitest'
import { type Device, NeuNorm, type StepMode, setNumThreads, tensor } from '../src/index.js'
import { expectClose, expectCode, expectSameBits, expectTensor } from './support/compare.js'
import { describeOnDevices } from './support/devices.js'
import {
  createLayer,
  createReference,
  DTYPES,
  loadRandomState,
  NORM_CLASSES,
  type NormClass,
  randomInput,
  toTensor,
} from './support/layers.js'
import { sizeOfShape } from './support/numbers.js'
import { type Grid, ReferenceNeuNorm, sizeOf } from './support/reference.js'
import { EXACT, type FloatType, largest, parameterType, random } from './support/tolerances.js'

/** Values of [T, N, C, S] as [T, N, S, C]. */
function toChannelsLast(values: Float64Array, { c, s }: Grid): Float64Array {
  return values.map((_, i) => values[i - (i % (c * s)) + (i % c) * s + (Math.floor(i / c) % s)]!)
}

/** [T, N, H, W, C] and the like. */
function shapeOf(stepMode: StepMode, { t, n, c }: Grid, extents: number[]): number[] {
  return [...(stepMode === 'm' ? [t] : []), n, ...extents, c]
}

/** Forward and backward, twice, in training and in eval, and everything that is left behind. */
function compareNorm(
  kind: NormClass,
  stepMode: StepMode,
  dtype: FloatType,
  device: Device,
  extents: number[],
): void {
  const grid: Grid = { t: stepMode === 's' ? 1 : 3, n: 4, c: 5, s: sizeOfShape(extents) }
  const options = { channels: grid.c, steps: 3, stepMode, dtype, device, channelsLast: true, momentum: 0.3 }
  const layer = createLayer(kind, options)
  const reference = createReference(kind, options)
  loadRandomState(layer, reference, 3, dtype)
  const shape = shapeOf(stepMode, grid, extents)
  let most = 0
  for (const [seed, training] of [true, false].entries()) {
    layer.reset()
    reference.reset()
    layer.train()
    reference.training = true
    const [x, dy] = [10, 20].map((base) => randomInput(base + seed, sizeOf(grid), dtype, 0.5)) as [
      Float64Array,
      Float64Array,
    ]
    const input = toTensor(toChannelsLast(x, grid), shape, dtype, device)
    if (training) {
      const expected = toChannelsLast(reference.forward(x, grid), grid)
      const gate = random('y', dtype, expected)
      expectTensor('y', layer.forward(input), { shape, values: expected, dtype }, gate)
      const gradient = toTensor(toChannelsLast(dy, grid), shape, dtype, device)
      const dx = layer.backward(gradient)
      const expectedDx = toChannelsLast(reference.backward(dy), grid)
      const gateDx = random('dx', dtype, expectedDx, reference.gain * largest(dy))
      expectTensor('dx', dx, { shape, values: expectedDx, dtype }, gateDx)
      most = Math.max(most, largest(dy))
    } else {
      layer.eval()
      reference.training = false
      const expected = toChannelsLast(reference.forward(x, grid, false), grid)
      const gate = random('y', dtype, expected, reference.gain * largest(x, reference.runningMean))
      expectTensor('y in eval', layer.forward(input), { shape, values: expected, dtype }, gate)
    }
  }
  const state = layer.stateDict()
  for (const [name, values] of reference.state()) {
    const gate = name.endsWith('tracked') ? EXACT : random('state', dtype, values, largest(values))
    expectClose(name, state[name]!.toFloat64Array(), values, gate)
  }
  for (const [name, { grad }] of layer.namedParameters()) {
    const expected = reference.grads().get(name)!
    expectClose(
      `gradient of ${name}`,
      // Of the steps of BNTT that were not taken there is none.
      grad?.toFloat64Array() ?? new Float64Array(expected.length),
      expected,
      random('grad', dtype, expected, most),
    )
  }
}

describeOnDevices('with channels last, a norm has the numbers of the float64 reference', (device) => {
  for (const kind of NORM_CLASSES) {
    for (const stepMode of kind.stepModes) {
      it(`${kind.name} in step mode '${stepMode}', in every dtype`, () => {
        for (const dtype of DTYPES) {
          compareNorm(kind, stepMode, dtype, device, [3, 2, 4].slice(0, kind.spatial))
          if (kind.spatial === 1) compareNorm(kind, stepMode, dtype, device, [])
        }
      })
    }
  }
})

/** Two calls that carry the state on, and the backwards through both. */
function compareNeuNorm(stepMode: StepMode, dtype: FloatType, device: Device, shared: boolean, c: number) {
  const [h, w] = [3, 5]
  const grid: Grid = { t: stepMode === 's' ? 1 : 3, n: 11, c, s: h * w }
  const options = { k: 0.7, sharedAcrossChannels: shared, stepMode, dtype, device, channelsLast: true }
  const layer = new NeuNorm(c, h, w, options)
  const reference = new ReferenceNeuNorm(c, h * w, 0.7, shared)
  reference.weight.set(randomInput(1, reference.weight.length, parameterType(dtype)))
  layer.loadStateDict({ w: tensor(reference.weight, [shared ? 1 : c, h, w], { device }) })
  const shape = shapeOf(stepMode, grid, [h, w])
  const given = (seed: number) => randomInput(seed, sizeOf(grid), dtype)
  const terms = largest(given(2), given(3), given(4), given(5))
  for (const seed of [2, 3]) {
    const expected = toChannelsLast(reference.forward(given(seed), grid), grid)
    const y = layer.forward(toTensor(toChannelsLast(given(seed), grid), shape, dtype, device))
    expectTensor('y', y, { shape, values: expected, dtype }, random('y', dtype, expected, terms))
  }
  for (const seed of [4, 5]) {
    const expected = toChannelsLast(reference.backward(given(seed)), grid)
    const dx = layer.backward(toTensor(toChannelsLast(given(seed), grid), shape, dtype, device))
    expectTensor('dx', dx, { shape, values: expected, dtype }, random('dx', dtype, expected, terms))
  }
  const got = layer.parameters()[0]!.grad!
  const values = reference.weightGrad
  expectTensor(
    'dw',
    got,
    { shape: [shared ? 1 : c, h, w], values },
    random('grad', dtype, values, terms * grid.n),
  )
}

describeOnDevices(
  'with channels last, NeuNorm carries state and gradients as the reference does',
  (device) => {
    for (const stepMode of ['s', 'm'] as const) {
      for (const shared of [false, true]) {
        it(`in step mode '${stepMode}'${shared ? ' with a shared weight' : ''}, in every dtype`, () => {
          for (const dtype of DTYPES) {
            // Fewer channels than the lanes of a sum, a few more, and many.
            for (const c of [1, 3, 19, 64]) compareNeuNorm(stepMode, dtype, device, shared, c)
          }
        })
      }
    }
  },
)

it('with channels last, NeuNorm has the same bits for any number of threads', () => {
  const [T, N, C, H, W] = [2, 9, 37, 23, 19] as const
  const x = toTensor(randomInput(1, T * N * C * H * W, 'float32'), [T, N, H, W, C], 'float32')
  const layer = new NeuNorm(C, H, W, { stepMode: 'm', channelsLast: true })
  const results = [1, 2, 5].map((threads) => {
    setNumThreads(threads)
    layer.reset()
    layer.zeroGrad()
    const y = layer.forward(x)
    return [y, layer.backward(y), layer.parameters()[0]!.grad!.clone()] as const
  })
  for (const result of results.slice(1)) {
    for (const [i, value] of result.entries()) {
      expectSameBits(`result ${i}`, value, results[0]![i]!)
    }
  }
})

describeOnDevices('with channels last, errors name the axes as they are', (device) => {
  const zero = (...shape: number[]) =>
    toTensor(new Float64Array(sizeOfShape(shape)), shape, 'float32', device)
  const layerOf = (name: string, stepMode: StepMode) =>
    createLayer(NORM_CLASSES.find((kind) => kind.name === name)!, {
      channels: 5,
      steps: 2,
      stepMode,
      dtype: 'float32',
      device,
      channelsLast: true,
    })

  it('for a wrong number of channels or of axes', () => {
    const tdbn = layerOf('ThresholdDependentBatchNorm2d', 'm')
    expectCode(
      'ERR_SHAPE',
      () => tdbn.forward(zero(2, 4, 5, 3, 3)),
      'numFeatures = 5 channels at axis 4, got 3',
    )
    expectCode('ERR_SHAPE', () => tdbn.forward(zero(4, 3, 3, 5)), '[T, N, H, W, C]')
    const single = layerOf('BatchNorm1d', 's')
    expectCode('ERR_SHAPE', () => single.forward(zero(2)), '[N, C] or [N, L, C]')
    expectCode('ERR_SHAPE', () => layerOf('BatchNorm3d', 'm').forward(zero(2)), '[T, N, D, H, W, C]')
  })

  it('for one value per channel', () => {
    const error = expectCode('ERR_BATCH_STATISTICS', () =>
      layerOf('BatchNorm2d', 's').forward(zero(1, 1, 1, 5)),
    )
    expect(error.message).toContain('1 over N and space')
  })

  it("for NeuNorm's input", () => {
    const layer = new NeuNorm(5, 2, 3, { channelsLast: true, device })
    expectCode('ERR_SHAPE', () => layer.forward(zero(4, 5, 2, 3)), 'expected [N, 2, 3, 5]')
  })

  it('for an option that is not a boolean', () => {
    expectCode('ERR_ARGUMENT', () => new NeuNorm(5, 2, 3, { channelsLast: 'yes' as unknown as boolean }))
  })
})
