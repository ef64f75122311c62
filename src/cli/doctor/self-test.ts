/**
 * Does it compute? Forward and backward of a tdBN layer, on the CPU compared with the formula in float64, on a device
 * with the CPU. Small: it is to find a binary, a driver or a device that does not work, not a wrong kernel. Nothing is
 * disposed of, since `using` is younger than Node 20.0 and the process ends soon.
 */
import { type Device, type Module, nn, ThresholdDependentBatchNorm2d, tensor } from '../../index.js'
import type { SelfTest } from './report.js'

const T = 3
const N = 2
const C = 5
const [H, W] = [4, 9]
const SHAPE = [T, N, C, H, W] as const
const SIZE = T * N * C * H * W
const EPS = 1e-5
/** alpha and vTh: the weight begins as their product. */
const [ALPHA, V_TH] = [0.5, 3]
/**
 * Largest error allowed, relative to the largest value of a result: some thirty roundings of float32, since two devices
 * that sum in different orders are compared. What does not work is off by about 1.
 */
const ALLOWED = 4e-6

/** Results by name: y, dx and the parameters' gradients. */
type Results = Record<string, Float64Array>

/** Values without a pattern, of which no channel has the mean and spread of another. */
function input(seed: number): Float32Array {
  return Float32Array.from({ length: SIZE }, (_, i) => {
    const channel = Math.floor(i / (H * W)) % C
    return Math.sin(i * 12.9898 + seed) * (1 + channel) + channel
  })
}

/** On the CPU against the formula. */
export function testCpu(): SelfTest {
  return timed(() => largestError(runNorm('cpu'), formula()))
}

/** On a CUDA device against the CPU; with a matrix product too, where cuBLAS is there to compute it. */
export function testDevice(device: Device, hasBlas: boolean): SelfTest {
  return timed(() => {
    const norm = largestError(runNorm(device), runNorm('cpu'))
    return hasBlas ? Math.max(norm, largestError(runLinear(device), runLinear('cpu'))) : norm
  })
}

function timed(error: () => number): SelfTest {
  const started = performance.now()
  const found = error()
  return { passed: found <= ALLOWED, error: found, milliseconds: performance.now() - started }
}

function runNorm(device: Device): Results {
  const layer = new ThresholdDependentBatchNorm2d(ALPHA, V_TH, C, { eps: EPS, device })
  return run(layer, device, SHAPE, SHAPE)
}

/** Weight and bias are random at first, so they are set. */
function runLinear(device: Device): Results {
  const layer = new nn.Linear(W, H, { device })
  layer.namedParameters().forEach(([, parameter], seed) => {
    const values = tensor(input(seed).subarray(0, parameter.size), parameter.shape)
    parameter.copy_(values)
  })
  return run(layer, device, [T * N * C * H, W], [T * N * C * H, H])
}

function run(
  layer: Module,
  device: Device,
  inShape: readonly number[],
  outShape: readonly number[],
): Results {
  const size = outShape.reduce((product, extent) => product * extent, 1)
  const x = tensor(input(1), inShape, { device })
  const dy = tensor(input(2).subarray(0, size), outShape, { device })
  const y = layer.forward(x)
  const dx = layer.backward(dy)
  const results: Results = { y: y.toFloat64Array(), dx: dx.toFloat64Array() }
  for (const [name, { grad }] of layer.namedParameters()) {
    if (grad) results[name] = grad.toFloat64Array()
  }
  return results
}

/** tdBN in plain loops, float64: y = w·x̂ and dx = (w/σ)·(dy − mean(dy) − x̂·mean(dy·x̂)), bias 0. */
function formula(): Results {
  const [x, dy] = [Float64Array.from(input(1)), Float64Array.from(input(2))]
  const [y, dx] = [new Float64Array(SIZE), new Float64Array(SIZE)]
  const [weight, bias] = [new Float64Array(C), new Float64Array(C)]
  const perChannel = T * N * H * W
  for (let channel = 0; channel < C; channel++) {
    const of = Array.from({ length: SIZE }, (_, i) => i).filter(
      (i) => Math.floor(i / (H * W)) % C === channel,
    )
    const mean = (value: (i: number) => number) => of.reduce((sum, i) => sum + value(i), 0) / perChannel
    const centre = mean((i) => x[i] as number)
    const deviation = Math.sqrt(mean((i) => ((x[i] as number) - centre) ** 2) + EPS)
    const normal = (i: number) => ((x[i] as number) - centre) / deviation
    const slope = mean((i) => dy[i] as number)
    const lean = mean((i) => (dy[i] as number) * normal(i))
    for (const i of of) {
      y[i] = ALPHA * V_TH * normal(i)
      dx[i] = ((ALPHA * V_TH) / deviation) * ((dy[i] as number) - slope - normal(i) * lean)
    }
    weight[channel] = lean * perChannel
    bias[channel] = slope * perChannel
  }
  return { y, dx, weight, bias }
}

/** The largest over all results, NaN and missing ones counting as infinitely wrong. */
function largestError(got: Results, expected: Results): number {
  let worst = 0
  for (const [name, values] of Object.entries(expected)) {
    const found = got[name]
    if (found?.length !== values.length) return Number.POSITIVE_INFINITY
    const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
    values.forEach((value, i) => {
      const error = Math.abs((found[i] as number) - value) / largest
      worst = error <= worst ? worst : Number.isNaN(error) ? Number.POSITIVE_INFINITY : error
    })
  }
  return worst
}
