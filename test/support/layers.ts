// The twelve batch norms as rows of one table, and the product's layer side by side with the reference.

import type { Device, DType, NormLayer, StepMode, Tensor } from '../../src/index.js'
import * as api from '../../src/index.js'
import { roundTo } from './half.js'
import { normal } from './numbers.js'
import { type Family, type Grid, ReferenceNorm } from './reference.js'
import { type FloatType, parameterType } from './tolerances.js'

export interface NormClass {
  name: string
  family: Family
  spatial: 1 | 2 | 3
  stepModes: StepMode[]
}

const FAMILIES: [string, Family, StepMode[]][] = [
  ['BatchNorm', 'batch', ['s', 'm']],
  ['ThresholdDependentBatchNorm', 'threshold', ['m']],
  ['TemporalEffectiveBatchNorm', 'temporal', ['m']],
  ['BatchNormThroughTime', 'throughTime', ['s', 'm']],
]

export const NORM_CLASSES: NormClass[] = FAMILIES.flatMap(([prefix, family, stepModes]) =>
  ([1, 2, 3] as const).map((spatial) => ({ name: `${prefix}${spatial}d`, family, spatial, stepModes })),
)

export const DTYPES: FloatType[] = ['float64', 'float32', 'float16', 'bfloat16']

export interface LayerOptions {
  channels: number
  steps: number
  stepMode: StepMode
  dtype: FloatType
  device?: Device
  eps?: number
  momentum?: number | null
  affine?: boolean
  track?: boolean
  alpha?: number
  vTh?: number
  channelsLast?: boolean
}

type Construct = (...args: unknown[]) => NormLayer

/** A layer of the product, with the constructor arguments its class takes. */
export function createLayer({ name, family }: NormClass, given: LayerOptions): NormLayer {
  const create = (api as unknown as Record<string, new (...args: unknown[]) => NormLayer>)[name]
  const construct: Construct = (...args) => new create!(...args)
  const { channels, steps, stepMode, dtype, device = 'cpu' } = given
  const options = {
    dtype,
    device,
    ...(given.eps !== undefined && { eps: given.eps }),
    ...(given.momentum !== undefined && { momentum: given.momentum }),
    ...(given.affine !== undefined && { affine: given.affine }),
    ...(given.track !== undefined && { trackRunningStats: given.track }),
    ...(given.channelsLast !== undefined && { channelsLast: given.channelsLast }),
  }
  if (family === 'threshold') return construct(given.alpha ?? 1, given.vTh ?? 1, channels, options)
  if (family === 'temporal') return construct(steps, channels, options)
  if (family === 'throughTime') return construct(steps, channels, { ...options, stepMode })
  return construct(channels, { ...options, stepMode })
}

/** The reference of the same layer. */
export function createReference({ family }: NormClass, given: LayerOptions): ReferenceNorm {
  return new ReferenceNorm({
    family,
    channels: given.channels,
    steps: given.steps,
    eps: given.eps ?? 1e-5,
    momentum: given.momentum === undefined ? 0.1 : given.momentum,
    affine: given.affine ?? true,
    track: given.track ?? true,
    initialWeight: family === 'threshold' ? (given.alpha ?? 1) * (given.vTh ?? 1) : 1,
  })
}

/** Gives both the same parameters and statistics, none of them at its default. */
export function loadRandomState(
  layer: NormLayer,
  reference: ReferenceNorm,
  seed: number,
  dtype: FloatType,
): void {
  const type = parameterType(dtype)
  const fill = (values: Float64Array | null, at: number, make: (value: number) => number) => {
    values?.set(normal(seed + at, values.length).map((value) => roundTo(make(value), type)))
  }
  fill(reference.weight, 1, (value) => 1 + 0.3 * value)
  fill(reference.bias, 2, (value) => 0.5 * value)
  fill(reference.scale, 3, (value) => 1 - 0.2 * value)
  fill(reference.runningMean, 4, (value) => value)
  fill(reference.runningVar, 5, (value) => 0.6 + value * value)
  loadState(layer, reference)
}

/** Copies the reference's state into the product's layer. */
export function loadState(layer: NormLayer, reference: ReferenceNorm): void {
  const current = layer.stateDict()
  const entries = [...reference.state()].map(([name, values]) => {
    const shape = current[name]?.shape ?? [values.length]
    const dtype: DType = name.endsWith('num_batches_tracked') ? 'int64' : 'float64'
    return [
      name,
      api.tensor(values, shape, { dtype, device: layer.parameters()[0]?.device ?? 'cpu' }),
    ] as const
  })
  layer.loadStateDict(Object.fromEntries(entries))
}

/** The shape of an input of this class: no spatial axis at all for `extents` empty. */
export function inputShape(mode: StepMode, grid: Grid, extents: number[]): number[] {
  return [...(mode === 'm' ? [grid.t] : []), grid.n, grid.c, ...extents]
}

/** Values that the dtype holds exactly, so that product and reference start from the same numbers. */
export function randomInput(
  seed: number,
  size: number,
  dtype: FloatType,
  mean = 0,
  deviation = 1,
): Float64Array {
  return normal(seed, size, mean, deviation).map((value) => roundTo(value, dtype))
}

export function toTensor(
  values: Float64Array,
  shape: number[],
  dtype: FloatType,
  device: Device = 'cpu',
): Tensor {
  return api.tensor(values, shape, { dtype, device })
}
