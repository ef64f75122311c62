/**
 * Threshold-dependent batch normalisation, tdBN (Zheng et al. 2021, "Going Deeper With Directly-Trained Larger Spiking
 * Neural Networks"): batch normalisation over T and N together whose output has a deviation of alpha · vTh. As in
 * SpikingJelly, alpha · vTh is the initial value of the weight; the paper keeps it as a constant factor outside, which
 * differs once training moves the weight. Always in step mode `'m'`.
 */
import { finiteNumber } from '../arguments.js'
import { NormLayer, type NormOptions, type NormPreset, readNormOptions } from './norm-layer.js'

const preset: NormPreset = {
  statistics: 'shared',
  weight: 'shared',
  bias: 'shared',
  timeScale: false,
  stepModes: ['m'],
}

const LEADING = ['alpha', 'vTh', 'numFeatures']

/** What the three tdBN classes share. */
export abstract class ThresholdDependentBatchNorm extends NormLayer {
  /** Factor of the initial weight for the number of branches that meet. */
  readonly alpha: number
  /** Threshold of the neurons behind, the other factor of the initial weight. */
  readonly vTh: number

  /** @internal */
  protected constructor(
    spatial: 1 | 2 | 3,
    alpha: number,
    vTh: number,
    numFeatures: number,
    options: NormOptions,
  ) {
    const initialWeight =
      finiteNumber(new.target.name, 'alpha', alpha) * finiteNumber(new.target.name, 'vTh', vTh)
    super(preset, { spatial, numFeatures, initialWeight }, options)
    this.alpha = alpha
    this.vTh = vTh
  }
}

/**
 * Threshold-dependent batch normalisation, tdBN (Zheng et al. 2021): batch normalisation over T and N together whose weight
 * starts at alpha·vTh. For `[T, N, C]` or `[T, N, C, L]`, always in step mode `'m'`. As SpikingJelly's
 * `layer.ThresholdDependentBatchNorm1d`; the paper keeps alpha·vTh as a constant factor beside the weight, which differs
 * once training moves the weight.
 */
export class ThresholdDependentBatchNorm1d extends ThresholdDependentBatchNorm {
  /**
   * Throws `ERR_ARGUMENT` for what is out of its range.
   * @param alpha 1, or 1/√n where n branches meet
   * @param vTh threshold of the neurons behind
   * @param numFeatures C, the number of channels
   * @param options PyTorch's, in camelCase; without a step mode to choose
   */
  constructor(alpha: number, vTh: number, numFeatures: number, options?: NormOptions) {
    super(1, alpha, vTh, numFeatures, readNormOptions(new.target.name, options, arguments, LEADING))
  }
}

/**
 * Threshold-dependent batch normalisation, tdBN (Zheng et al. 2021): batch normalisation over T and N together whose weight
 * starts at alpha·vTh. For `[T, N, C, H, W]`, always in step mode `'m'`. As SpikingJelly's
 * `layer.ThresholdDependentBatchNorm2d`; the paper keeps alpha·vTh as a constant factor beside the weight, which differs
 * once training moves the weight.
 */
export class ThresholdDependentBatchNorm2d extends ThresholdDependentBatchNorm {
  /**
   * Throws `ERR_ARGUMENT` for what is out of its range.
   * @param alpha 1, or 1/√n where n branches meet
   * @param vTh threshold of the neurons behind
   * @param numFeatures C, the number of channels
   * @param options PyTorch's, in camelCase; without a step mode to choose
   */
  constructor(alpha: number, vTh: number, numFeatures: number, options?: NormOptions) {
    super(2, alpha, vTh, numFeatures, readNormOptions(new.target.name, options, arguments, LEADING))
  }
}

/**
 * Threshold-dependent batch normalisation, tdBN (Zheng et al. 2021): batch normalisation over T and N together whose weight
 * starts at alpha·vTh. For `[T, N, C, D, H, W]`, always in step mode `'m'`. As SpikingJelly's
 * `layer.ThresholdDependentBatchNorm3d`; the paper keeps alpha·vTh as a constant factor beside the weight, which differs
 * once training moves the weight.
 */
export class ThresholdDependentBatchNorm3d extends ThresholdDependentBatchNorm {
  /**
   * Throws `ERR_ARGUMENT` for what is out of its range.
   * @param alpha 1, or 1/√n where n branches meet
   * @param vTh threshold of the neurons behind
   * @param numFeatures C, the number of channels
   * @param options PyTorch's, in camelCase; without a step mode to choose
   */
  constructor(alpha: number, vTh: number, numFeatures: number, options?: NormOptions) {
    super(3, alpha, vTh, numFeatures, readNormOptions(new.target.name, options, arguments, LEADING))
  }
}
