// Is what will be timed right? Every layer is compared with float64 before its first timing: with the same layer in
// float64 on the CPU, or, where that is what is timed, with the naive loops that the tests are held to.

import type { DType, Module, Tensor } from 'spikenorm'
import { ReferenceNeuNorm, ReferenceNorm } from '../../test/support/reference.js'
import { randomiseParameters, randomTensor } from '../cases/data.js'
import { createLayer, type LayerName, type LayerOptions } from '../cases/layers.js'
import type { Shape } from '../cases/shapes.js'

export interface Check {
  /** Largest error of y, dx or a parameter's gradient, as a share of its bound. */
  worst: number
  /** What that was of. */
  of: string
  against: 'float64 on the CPU' | 'naive float64 loops'
}

export class WrongResult extends Error {
  override readonly name = 'WrongResult'
}

interface Results {
  y: Float64Array
  dx: Float64Array
  /** by PyTorch's names */
  grads: Map<string, Float64Array>
}

/**
 * Error relative to the largest value of a result. Parameter gradients are sums that may cancel, so they are held
 * relative to the number of their terms, which are of size 1.
 */
const RELATIVE: Record<string, number> = {
  float64: 1e-12,
  float32: 4e-6,
  // Two units in the last place: rounded once, from float32.
  float16: 2 ** -9,
  bfloat16: 2 ** -6,
}

/** Throws {@link WrongResult} where the layer is off. */
export function check(name: LayerName, shape: Shape, options: LayerOptions): Check {
  const { dtype, device } = options
  const isWidestOnCpu = dtype === 'float64' && device === 'cpu'
  using x = randomTensor(1, shape.dims, dtype, device)
  using dy = randomTensor(2, shape.dims, dtype, device)
  const got = run(name, shape, options, x, dy)
  const wide = { dtype: 'float64', device: 'cpu' } as const
  using wideX = onCpu(x)
  using wideDy = onCpu(dy)
  const expected = isWidestOnCpu ? naive(name, shape, wideX, wideDy) : run(name, shape, wide, wideX, wideDy)
  const worst = largestError(got, expected, dtype, shape)
  if (!(worst.share <= 1)) {
    throw new WrongResult(
      `${name} ${shape.name} ${dtype} on ${device}: ${worst.of} is off by ${worst.share.toFixed(2)} times its bound`,
    )
  }
  return {
    worst: worst.share,
    of: worst.of,
    against: isWidestOnCpu ? 'naive float64 loops' : 'float64 on the CPU',
  }
}

function onCpu(given: Tensor): Tensor {
  using near = given.device === 'cpu' ? given.clone() : given.to('cpu')
  return near.dtype === 'float64' ? near.clone() : near.to('float64')
}

function prepared(name: LayerName, shape: Shape, options: LayerOptions): Module {
  const layer = createLayer(name, shape, options)
  randomiseParameters(layer, 3)
  return layer
}

function run(name: LayerName, shape: Shape, options: LayerOptions, x: Tensor, dy: Tensor): Results {
  using layer = prepared(name, shape, options)
  using y = layer.forward(x)
  using dx = layer.backward(dy)
  const grads = new Map(
    layer.namedParameters().map(([key, { grad }]) => [key, (grad as Tensor).toFloat64Array()] as const),
  )
  return { y: y.toFloat64Array(), dx: dx.toFloat64Array(), grads }
}

const FAMILIES = { batchnorm: 'batch', tdbn: 'threshold', tebn: 'temporal', bntt: 'throughTime' } as const

function naive(name: LayerName, shape: Shape, x: Tensor, dy: Tensor): Results {
  const [t, n, c, ...space] = shape.dims as [number, number, number, ...number[]]
  const grid = { t, n, c, s: space.reduce((product, extent) => product * extent, 1) }
  using layer = prepared(name, shape, { dtype: 'float64', device: 'cpu' })
  const values = new Map(layer.namedParameters().map(([key, p]) => [key, p.toFloat64Array()] as const))
  if (name === 'neunorm') {
    const reference = new ReferenceNeuNorm(c, grid.s, 0.9, false)
    reference.weight.set(values.get('w') as Float64Array)
    const y = reference.forward(x.toFloat64Array(), grid)
    const dx = reference.backward(dy.toFloat64Array())
    return { y, dx, grads: new Map([['w', reference.weightGrad]]) }
  }
  const reference = new ReferenceNorm({
    family: FAMILIES[name],
    channels: c,
    steps: t,
    eps: 1e-5,
    momentum: 0.1,
    affine: true,
    track: true,
    initialWeight: 1,
  })
  for (let row = 0; row < reference.rows(); row++) {
    reference.weight?.set(
      (values.get(`bn_list.${row}.weight`) ?? values.get('weight')) as Float64Array,
      row * c,
    )
  }
  if (reference.bias) reference.bias.set(values.get('bias') as Float64Array)
  if (reference.scale) reference.scale.set(values.get('scale') as Float64Array)
  const y = reference.forward(x.toFloat64Array(), grid)
  const dx = reference.backward(dy.toFloat64Array())
  return { y, dx, grads: reference.grads() }
}

function largestError(
  got: Results,
  expected: Results,
  dtype: DType,
  shape: Shape,
): { share: number; of: string } {
  const [t, n, c, ...space] = shape.dims as [number, number, number, ...number[]]
  const s = space.reduce((product, extent) => product * extent, 1)
  const relative = RELATIVE[dtype] as number
  const wide = dtype === 'float64' ? relative : (RELATIVE.float32 as number)
  const errors = [
    { of: 'y', share: errorOf(got.y, expected.y) / (relative * largest(expected.y)) },
    // dx cancels: its terms are of the size of dy · w / deviation, which is about that of the largest dx.
    { of: 'dx', share: errorOf(got.dx, expected.dx) / (relative * largest(expected.dx)) },
  ]
  for (const [key, values] of expected.grads) {
    // A gradient of C channels sums N·S values for each of T steps; one of the time scale sums C of those.
    const terms = key === 'scale' ? n * c * s : t * n * s
    const grad = got.grads.get(key)
    const error = grad ? errorOf(grad, values) : Number.POSITIVE_INFINITY
    errors.push({
      of: `the gradient of ${key}`,
      share: error / (wide * Math.max(largest(values), Math.sqrt(terms))),
    })
  }
  return errors.reduce((worst, error) => (error.share <= worst.share ? worst : error))
}

function errorOf(got: Float64Array, expected: Float64Array): number {
  if (got.length !== expected.length) return Number.POSITIVE_INFINITY
  let worst = 0
  for (let i = 0; i < got.length; i++) {
    const error = Math.abs((got[i] as number) - (expected[i] as number))
    if (!(error <= worst)) worst = Number.isNaN(error) ? Number.POSITIVE_INFINITY : error
  }
  return worst
}

function largest(values: Float64Array): number {
  let most = 0
  for (const value of values) most = Math.max(most, Math.abs(value))
  return most
}
