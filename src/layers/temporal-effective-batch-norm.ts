/**
 * Temporal effective batch normalisation, TEBN (Duan et al. 2022, "Temporal Effective Batch Normalization in Spiking
 * Neural Networks"): batch normalisation over T and N together, then a learned scale per time step,
 * `y_t = scale[t] · (x̂_t · weight + bias)`. Always in step mode `'m'` with exactly T steps (`ERR_TIME_STEP`). One
 * input is saved for backward, where SpikingJelly's saves two.
 */
import { NormLayer, type NormOptions, type NormPreset } from './norm-layer.js'

const preset: NormPreset = {
  statistics: 'shared',
  weight: 'shared',
  bias: 'shared',
  timeScale: true,
  stepModes: ['m'],
}

/** For `[T, N, C]` or `[T, N, C, L]`. */
export class TemporalEffectiveBatchNorm1d extends NormLayer {
  constructor(
    readonly T: number,
    numFeatures: number,
    options: NormOptions = {},
  ) {
    super(preset, { spatial: 1, T, numFeatures }, options)
  }
}

/** For `[T, N, C, H, W]`. */
export class TemporalEffectiveBatchNorm2d extends NormLayer {
  constructor(
    readonly T: number,
    numFeatures: number,
    options: NormOptions = {},
  ) {
    super(preset, { spatial: 2, T, numFeatures }, options)
  }
}

/** For `[T, N, C, D, H, W]`. */
export class TemporalEffectiveBatchNorm3d extends NormLayer {
  constructor(
    readonly T: number,
    numFeatures: number,
    options: NormOptions = {},
  ) {
    super(preset, { spatial: 3, T, numFeatures }, options)
  }
}
