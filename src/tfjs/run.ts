/** One differentiable call of a module by TensorFlow.js: what ops and tf.layers share. */
import * as tf from '@tensorflow/tfjs-core'
import {
  BatchNorm1d,
  BatchNorm2d,
  BatchNorm3d,
  type Device,
  type Module,
  noGrad,
  type Parameter,
  SpikenormError,
  type Tensor,
  ThresholdDependentBatchNorm1d,
  ThresholdDependentBatchNorm2d,
  ThresholdDependentBatchNorm3d,
} from '../index.js'
import { arrayOf, overwrite, snapshotOf, swapped, tensorOf, valuesOf } from './values.js'

/** Classes that take T and N for one batch in step mode `'m'`, in whatever order these two axes come. */
const BLIND_TO_ORDER: ReadonlySet<unknown> = new Set([
  BatchNorm1d,
  BatchNorm2d,
  BatchNorm3d,
  ThresholdDependentBatchNorm1d,
  ThresholdDependentBatchNorm2d,
  ThresholdDependentBatchNorm3d,
])

/** Where a module computes: where its first parameter or buffer is. */
function deviceOf(module: Module): Device {
  return [...module.namedParameters(), ...module.namedBuffers()][0]?.[1].device ?? 'cpu'
}

/** How values come to a module and go back: the order of the two leading axes, and the device. */
class Passage {
  readonly #device: Device
  readonly #swaps: boolean

  constructor(module: Module, batchFirst: boolean) {
    this.#device = deviceOf(module)
    this.#swaps = batchFirst && module.stepMode === 'm' && !BLIND_TO_ORDER.has(module.constructor)
  }

  into(what: string, x: tf.Tensor): Tensor {
    const values = valuesOf(what, x)
    if (!this.#swaps) return tensorOf(values, x.shape, this.#device)
    const [N, T, ...rest] = x.shape
    if (N === undefined || T === undefined) {
      throw new SpikenormError('ERR_SHAPE', `${what}: expected [N, T, …], got shape [${x.shape.join(', ')}]`)
    }
    return tensorOf(swapped(values, x.shape), [T, N, ...rest], this.#device)
  }

  outOf(y: Tensor): tf.Tensor {
    if (!this.#swaps) return tf.tensor(arrayOf(y), [...y.shape], 'float32')
    const [T = 1, N = 1, ...rest] = y.shape
    return tf.tensor(swapped(arrayOf(y), y.shape), [N, T, ...rest], 'float32')
  }
}

/** Whether TensorFlow.js is writing down operations for a gradient. */
function isRecorded(): boolean {
  return tf.engine().state.gradientDepth > 0
}

/** The same values, whose own gradient cannot be asked for. */
function withoutGradient(what: string, value: tf.Tensor, inputs: tf.Tensor[]): tf.Tensor {
  const refuse = (): never => {
    throw new SpikenormError('ERR_ARGUMENT', `${what}: gradients of gradients are not implemented`)
  }
  return tf.customGrad(() => ({ value, gradFunc: refuse }))(...inputs)
}

/** Runs `backward` and gives the gradients it leaves for `parameters`, whose own `.grad` stays as it was. */
function gradientsOf(parameters: readonly Parameter[], backward: () => Tensor): [Tensor, (Tensor | null)[]] {
  const kept = parameters.map(({ grad }) => grad)
  for (const parameter of parameters) parameter.grad = null
  try {
    const dx = backward()
    return [dx, parameters.map(({ grad }) => grad)]
  } finally {
    for (const [i, parameter] of parameters.entries()) parameter.grad = kept[i] ?? null
  }
}

/** A parameter of a module and the tensor of TensorFlow.js that has its value. */
export type Weight = readonly [Parameter, tf.Tensor]

/**
 * `module.forward(x)` as an operation of TensorFlow.js with gradients for `x` and for the `weights`, which are all the
 * parameters of the module. Recorded only where TensorFlow.js asks for gradients.
 */
export function run(
  module: Module,
  x: tf.Tensor,
  weights: readonly Weight[],
  { batchFirst }: { batchFirst: boolean },
): tf.Tensor {
  const name = module.constructor.name
  const parameters = weights.map(([parameter]) => parameter)
  const variables = weights.map(([, variable]) => variable)
  const passage = new Passage(module, batchFirst)
  const input = passage.into(`${name}: input`, x)
  overwrite(`${name}: variables`, weights)

  if (!isRecorded()) {
    const y = noGrad(() => module.forward(input))
    const result = passage.outOf(y)
    y.dispose()
    input.dispose()
    return result
  }

  const { y, backward } = module.vjp(input)
  const output = passage.outOf(y)
  if (y !== input) y.dispose()
  const gradFunc = (dy: tf.Tensor): tf.Tensor[] => {
    const gradient = passage.into(`${name}: dy`, dy)
    const [dx, grads] = gradientsOf(parameters, () => backward(gradient))
    const results = [
      passage.outOf(dx),
      ...grads.map((grad, i) => (grad ? snapshotOf(grad) : tf.zeros(variables[i]?.shape ?? []))),
    ]
    for (const used of [dx, gradient, input, ...grads]) used?.dispose()
    if (!isRecorded()) return results
    return results.map((value) => withoutGradient(name, value, [dy, x, ...variables]))
  }
  return tf.customGrad(() => ({ value: output, gradFunc }))(x, ...variables)
}
