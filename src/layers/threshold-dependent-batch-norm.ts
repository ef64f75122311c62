/**
 * Threshold-dependent batch normalisation, tdBN (Zheng et al. 2021, "Going Deeper With Directly-Trained Larger Spiking
 * Neural Networks"): batch normalisation over T and N together whose output has a deviation of alpha · vTh. As in
 * SpikingJelly, alpha · vTh is the initial value of the weight; the paper keeps it as a constant factor outside, which
 * differs once training moves the weight. Always in step mode `'m'`.
 */
import { finiteNumber } from './arguments.js'
import { NormLayer, type NormOptions, type NormPreset } from './norm-layer.js'

const preset: NormPreset = {
  statistics: 'shared',
  weight: 'shared',
  bias: 'shared',
  timeScale: false,
  stepModes: ['m'],
}

abstract class ThresholdDependentBatchNorm extends NormLayer {
  readonly alpha: number
  readonly vTh: number

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

/** For `[T, N, C]` or `[T, N, C, L]`. */
export class ThresholdDependentBatchNorm1d extends ThresholdDependentBatchNorm {
  /** @param alpha factor for the number of branches that meet @param vTh threshold of the neurons behind */
  constructor(alpha: number, vTh: number, numFeatures: number, options: NormOptions = {}) {
    super(1, alpha, vTh, numFeatures, options)
  }
}

/** For `[T, N, C, H, W]`. */
export class ThresholdDependentBatchNorm2d extends ThresholdDependentBatchNorm {
  /** @param alpha factor for the number of branches that meet @param vTh threshold of the neurons behind */
  constructor(alpha: number, vTh: number, numFeatures: number, options: NormOptions = {}) {
    super(2, alpha, vTh, numFeatures, options)
  }
}

/** For `[T, N, C, D, H, W]`. */
export class ThresholdDependentBatchNorm3d extends ThresholdDependentBatchNorm {
  /** @param alpha factor for the number of branches that meet @param vTh threshold of the neurons behind */
  constructor(alpha: number, vTh: number, numFeatures: number, options: NormOptions = {}) {
    super(3, alpha, vTh, numFeatures, options)
  }
}
