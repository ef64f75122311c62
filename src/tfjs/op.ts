/** Modules as operations of TensorFlow.js. */
import * as tf from '@tensorflow/tfjs-core'
import type { LoadResult, Module, Tensor } from '../index.js'
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
  /** The module's output for a float32 tensor; differentiable once, in `x` and in {@link variables}. */
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

let count = 0

/**
 * Makes an operation of any module with float32 parameters: `tf.grad`, `tf.variableGrads` and `optimizer.minimize` go
 * through it. `module.train()` and `eval()` choose the statistics, as ever, and running statistics move in the module.
 * Calls that TensorFlow.js takes no gradient of leave nothing pending. A state carried between calls (NeuNorm, neurons)
 * is not part of TensorFlow.js's graph: its gradient flows back through calls whose outputs are all used.
 */
export function op(module: Module, options: OpOptions = {}): Op {
  const { batchFirst = false, name = `spikenorm/${module.constructor.name}_${++count}` } = options
  const parameters = module.namedParameters()
  const made: tf.Variable[] = []
  try {
    for (const [parameter, value] of parameters) {
      const initial = snapshotOf(value)
      try {
        made.push(tf.variable(initial, true, `${name}/${parameter}`))
      } finally {
        initial.dispose()
      }
    }
  } catch (thrown) {
    for (const variable of made) variable.dispose()
    throw thrown
  }
  const apply = (x: tf.Tensor) => tf.tidy(() => run(module, x, made, { batchFirst }))
  return Object.assign(apply, {
    module,
    variables: Object.fromEntries(parameters.map(([key], i) => [key, made[i] as tf.Variable])),
    stateDict() {
      for (const [i, [, parameter]] of parameters.entries()) overwrite(parameter, made[i] as tf.Variable)
      return module.stateDict()
    },
    loadStateDict(dict: Record<string, Tensor>, loadOptions: { strict?: boolean } = {}) {
      const result = module.loadStateDict(dict, loadOptions)
      for (const [i, [, parameter]] of parameters.entries()) {
        const value = snapshotOf(parameter)
        made[i]?.assign(value)
        value.dispose()
      }
      return result
    },
    dispose() {
      for (const variable of made) variable.dispose()
    },
  })
}
