/**
 * Batch normalisation through time, BNTT (Kim & Panda 2021, "Revisiting Batch Normalization for Training Low-Latency
 * Deep Spiking Neural Networks From Scratch"): a batch normalisation without bias for every time step, each with its
 * own statistics and weight. A step index, 0 after `reset()`, moves by one per time step in both step modes and is kept
 * between calls; a step past T throws `ERR_TIME_STEP`.
 */
import { NormLayer, type NormOptions, type NormPreset, readNormOptions } from './norm-layer.js'

const preset: NormPreset = {
  statistics: 'perStep',
  weight: 'perStep',
  bias: 'absent',
  timeScale: false,
  stepModes: ['s', 'm'],
}

const LEADING = ['T', 'numFeatures']

/**
 * Batch normalisation through time, BNTT (Kim & Panda 2021): a batch normalisation without bias for every time step, each
 * with its own statistics and weight. For `[N, C]` or `[N, C, L]`; with a leading T in step mode `'m'`. A step index, 0 after
 * `reset()`, moves by one per time step in both step modes; a step past T throws `ERR_TIME_STEP`. Keys are
 * `bn_list.{t}.weight`, `bn_list.{t}.running_mean`, …; SpikingJelly's `layer.BatchNormThroughTime1d`.
 */
export class BatchNormThroughTime1d extends NormLayer {
  /**
   * Throws `ERR_ARGUMENT` for what is out of its range.
   * @param T number of time steps
   * @param numFeatures C, the number of channels
   * @param options PyTorch's, in camelCase
   */
  constructor(
    /** Number of time steps. */
    readonly T: number,
    numFeatures: number,
    options?: NormOptions,
  ) {
    super(
      preset,
      { spatial: 1, T, numFeatures },
      readNormOptions(new.target.name, options, arguments, LEADING),
    )
  }
}

/**
 * Batch normalisation through time, BNTT (Kim & Panda 2021): a batch normalisation without bias for every time step, each
 * with its own statistics and weight. For `[N, C, H, W]`; with a leading T in step mode `'m'`. A step index, 0 after
 * `reset()`, moves by one per time step in both step modes; a step past T throws `ERR_TIME_STEP`. Keys are
 * `bn_list.{t}.weight`, `bn_list.{t}.running_mean`, …; SpikingJelly's `layer.BatchNormThroughTime2d`.
 */
export class BatchNormThroughTime2d extends NormLayer {
  /**
   * Throws `ERR_ARGUMENT` for what is out of its range.
   * @param T number of time steps
   * @param numFeatures C, the number of channels
   * @param options PyTorch's, in camelCase
   */
  constructor(
    /** Number of time steps. */
    readonly T: number,
    numFeatures: number,
    options?: NormOptions,
  ) {
    super(
      preset,
      { spatial: 2, T, numFeatures },
      readNormOptions(new.target.name, options, arguments, LEADING),
    )
  }
}

/**
 * Batch normalisation through time, BNTT (Kim & Panda 2021): a batch normalisation without bias for every time step, each
 * with its own statistics and weight. For `[N, C, D, H, W]`; with a leading T in step mode `'m'`. A step index, 0 after
 * `reset()`, moves by one per time step in both step modes; a step past T throws `ERR_TIME_STEP`. Keys are
 * `bn_list.{t}.weight`, `bn_list.{t}.running_mean`, …; SpikingJelly's `layer.BatchNormThroughTime3d`.
 */
export class BatchNormThroughTime3d extends NormLayer {
  /**
   * Throws `ERR_ARGUMENT` for what is out of its range.
   * @param T number of time steps
   * @param numFeatures C, the number of channels
   * @param options PyTorch's, in camelCase
   */
  constructor(
    /** Number of time steps. */
    readonly T: number,
    numFeatures: number,
    options?: NormOptions,
  ) {
    super(
      preset,
      { spatial: 3, T, numFeatures },
      readNormOptions(new.target.name, options, arguments, LEADING),
    )
  }
}
