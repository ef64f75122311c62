/**
 * Batch normalisation through time, BNTT (Kim & Panda 2021, "Revisiting Batch Normalization for Training Low-Latency
 * Deep Spiking Neural Networks From Scratch"): a batch normalisation without bias for every time step, each with its
 * own statistics and weight. A step index, 0 after `reset()`, moves by one per time step in both step modes and is kept
 * between calls; a step past T throws `ERR_TIME_STEP`.
 */
import { NormLayer, type NormOptions, type NormPreset } from './norm-layer.js'

const preset: NormPreset = {
  statistics: 'perStep',
  weight: 'perStep',
  bias: 'absent',
  timeScale: false,
  stepModes: ['s', 'm'],
}

/** For `[N, C]` or `[N, C, L]`; with a leading T in step mode `'m'`. */
export class BatchNormThroughTime1d extends NormLayer {
  constructor(
    readonly T: number,
    numFeatures: number,
    options: NormOptions = {},
  ) {
    super(preset, { spatial: 1, T, numFeatures }, options)
  }
}

/** For `[N, C, H, W]`; with a leading T in step mode `'m'`. */
export class BatchNormThroughTime2d extends NormLayer {
  constructor(
    readonly T: number,
    numFeatures: number,
    options: NormOptions = {},
  ) {
    super(preset, { spatial: 2, T, numFeatures }, options)
  }
}

/** For `[N, C, D, H, W]`; with a leading T in step mode `'m'`. */
export class BatchNormThroughTime3d extends NormLayer {
  constructor(
    readonly T: number,
    numFeatures: number,
    options: NormOptions = {},
  ) {
    super(preset, { spatial: 3, T, numFeatures }, options)
  }
}
