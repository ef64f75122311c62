/** Modules as operations of TensorFlow.js. */
import * as tf from '@tensorflow/tfjs-core'
import { argumentError, boolean, type Check, readOptions, type Signature } from '../arguments.js'
import { type LoadResult, Module, type Parameter, SpikenormError, type Tensor } from '../index.js'
import { run } from './run.js'
import { overwrite, snapshotOf } from './values.js'

/** Options of {@link op}. */
export interface OpOptions {
  /**
   * Whether inputs and outputs of step mode `'m'` are `[N, T, …]` instead of `[T, N, …]`. Default false. BatchNorm and
   * ThresholdDependentBatchNorm take either as it lies in memory; other layers cost a copy of input and output.
   */
  batchFirst?: boolean
  /** Prefix of the variables' names, which are unique in TensorFlow.js. Default: `spikenorm/` and the class, numbered. */
  name?: string
}

/** A module as a function of TensorFlow.js tensors. */
export interface Op {
  /**
   * The module's output, float32, for a float32, int32 or bool tensor; differentiable once, in `x` and in
   * {@link variables}.
   */
  (x: tf.Tensor): tf.Tensor
  /** The module that computes. */
  readonly module: Module
  /**
   * The module's parameters by PyTorch's names, for optimisers of TensorFlow.js. From {@link op} on they are what counts:
   * every call writes their values into the module.
   */
  readonly variables: Readonly<Record<string, tf.Variable>>
  /** The module's state with the variables' present values. */
  stateDict(): Record<string, Tensor>
  /** Loads a state into the module and the variables. */
  loadStateDict(dict: Record<string, Tensor>, options?: { strict?: boolean }): LoadResult
  /** Frees the variables; the module stays. */
  dispose(): void
}

const text: Check<string> = (where, name, value) => {
  if (typeof value !== 'string') throw argumentError(where, name, 'a string', value)
  return value
}

const SIGNATURE: Signature<OpOptions> = {
  call: 'op',
  leading: ['module'],
  options: { batchFirst: boolean, name: text },
}

let count = 0

/**
 * Makes an operation of any module with float32 parameters: `tf.grad`, `tf.variableGrads` and `optimizer.minimize` go
 * through it. `module.train()` and `eval()` choose the statistics, as ever, and running statistics move in the module.
 * Calls that TensorFlow.js takes no gradient of leave nothing pending. A state carried between calls (NeuNorm, neurons)
 * is not part of TensorFlow.js's graph: its gradient flows back through calls whose outputs are all used.
 */
export function op(module: Module, options: OpOptions = {}): Op {
  if (!(module instanceof Module)) throw argumentError('op', 'module', 'a Module', module)
  const { batchFirst = false, name = `spikenorm/${module.constructor.name}_${++count}` } =
    readOptions<OpOptions>('op', options, arguments, SIGNATURE)
  const variables: Record<string, tf.Variable> = {}
  const weights: [Parameter, tf.Variable][] = []
  const dispose = () => {
    for (const [, variable] of weights) variable.dispose()
  }
  try {
    for (const [key, parameter] of module.namedParameters()) {
      const initial = snapshotOf(parameter)
      try {
        const variable = tf.variable(initial, true, `${name}/${key}`)
        variables[key] = variable
        weights.push([parameter, variable])
      } finally {
        initial.dispose()
      }
    }
  } catch (thrown) {
    dispose()
    throw thrown
  }
  const expectVariables = () => {
    if (weights.some(([, variable]) => variable.isDisposed)) {
      throw new SpikenormError(
        'ERR_DISPOSED',
        `op of ${module.constructor.name}: a variable has been disposed of`,
      )
    }
  }
  const apply = (x: tf.Tensor) => {
    expectVariables()
    return tf.tidy(() => run(module, x, weights, { batchFirst }))
  }
  return Object.assign(apply, {
    module,
    variables,
    stateDict() {
      expectVariables()
      overwrite('variables', weights)
      return module.stateDict()
    },
    loadStateDict(dict: Record<string, Tensor>, loadOptions: { strict?: boolean } = {}) {
      expectVariables()
      const result = module.loadStateDict(dict, loadOptions)
      for (const [parameter, variable] of weights) {
        const value = snapshotOf(parameter)
        variable.assign(value)
        value.dispose()
      }
      return result
    },
    dispose,
  })
}
