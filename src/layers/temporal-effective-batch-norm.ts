/**
 * Temporal effective batch normalisation, TEBN (Duan et al. 2022, "Temporal Effective Batch Normalization in Spiking
 * Neural Networks"): batch normalisation over T and N together, then a learned scale per time step,
 * `y_t = scale[t] · (x̂_t · weight + bias)`. Always in step mode `'m'` with exactly T steps (`ERR_TIME_STEP`). One
 * input is saved for backward, where SpikingJelly's saves two.
 */
import { NormLayer, type NormOptions, type NormPreset, readNormOptions } from './norm-layer.js'

const preset: NormPreset = {
  statistics: 'shared',
  weight: 'shared',
  bias: 'shared',
  timeScale: true,
  stepModes: ['m'],
}

const LEADING = ['T', 'numFeatures']

/**
 * Temporal effective batch normalisation, TEBN (Duan et al. 2022): batch normalisation over T and N together, then a
 * learned scale per time step, `y_t = scale[t]·(x̂_t·weight + bias)`. For `[T, N, C]` or `[T, N, C, L]`, always in step mode `'m'`;
 * another T than the layer's throws `ERR_TIME_STEP`. SpikingJelly's `layer.TemporalEffectiveBatchNorm1d`, whose backward
 * keeps two inputs where this keeps one.
 */
export class TemporalEffectiveBatchNorm1d extends NormLayer {
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
 * Temporal effective batch normalisation, TEBN (Duan et al. 2022): batch normalisation over T and N together, then a
 * learned scale per time step, `y_t = scale[t]·(x̂_t·weight + bias)`. For `[T, N, C, H, W]`, always in step mode `'m'`;
 * another T than the layer's throws `ERR_TIME_STEP`. SpikingJelly's `layer.TemporalEffectiveBatchNorm2d`, whose backward
 * keeps two inputs where this keeps one.
 */
export class TemporalEffectiveBatchNorm2d extends NormLayer {
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
 * Temporal effective batch normalisation, TEBN (Duan et al. 2022): batch normalisation over T and N together, then a
 * learned scale per time step, `y_t = scale[t]·(x̂_t·weight + bias)`. For `[T, N, C, D, H, W]`, always in step mode `'m'`;
 * another T than the layer's throws `ERR_TIME_STEP`. SpikingJelly's `layer.TemporalEffectiveBatchNorm3d`, whose backward
 * keeps two inputs where this keeps one.
 */
export class TemporalEffectiveBatchNorm3d extends NormLayer {
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
