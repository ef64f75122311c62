/**
 * Batch normalisation (Ioffe & Szegedy 2015), semantics of `torch.nn.BatchNorm*d` and of SpikingJelly's layers of the
 * same name: `y = (x − mean)/√(var + eps) · weight + bias`. In step mode `'m'` T and N are one batch, with one update
 * of the running statistics over all T·N; T single steps make T updates.
 */
import { NormLayer, type NormOptions, type NormPreset, readNormOptions } from './norm-layer.js'

const preset: NormPreset = {
  statistics: 'shared',
  weight: 'shared',
  bias: 'shared',
  timeScale: false,
  stepModes: ['s', 'm'],
}

const LEADING = ['numFeatures']

/**
 * Batch normalisation (Ioffe & Szegedy 2015), as `torch.nn.BatchNorm1d` and SpikingJelly's `layer.BatchNorm1d`:
 * `y = (x − mean)/√(var + eps)·weight + bias`. For `[N, C]` or `[N, C, L]`; with a leading T in step mode `'m'`, where T and
 * N are one batch and the running statistics move once. Training with one value per channel throws
 * `ERR_BATCH_STATISTICS`.
 */
export class BatchNorm1d extends NormLayer {
  /**
   * Throws `ERR_ARGUMENT` for what is out of its range.
   * @param numFeatures C, the number of channels
   * @param options PyTorch's, in camelCase
   */
  constructor(numFeatures: number, options?: NormOptions) {
    super(preset, { spatial: 1, numFeatures }, readNormOptions(new.target.name, options, arguments, LEADING))
  }
}

/**
 * Batch normalisation (Ioffe & Szegedy 2015), as `torch.nn.BatchNorm2d` and SpikingJelly's `layer.BatchNorm2d`:
 * `y = (x − mean)/√(var + eps)·weight + bias`. For `[N, C, H, W]`; with a leading T in step mode `'m'`, where T and
 * N are one batch and the running statistics move once. Training with one value per channel throws
 * `ERR_BATCH_STATISTICS`.
 */
export class BatchNorm2d extends NormLayer {
  /**
   * Throws `ERR_ARGUMENT` for what is out of its range.
   * @param numFeatures C, the number of channels
   * @param options PyTorch's, in camelCase
   */
  constructor(numFeatures: number, options?: NormOptions) {
    super(preset, { spatial: 2, numFeatures }, readNormOptions(new.target.name, options, arguments, LEADING))
  }
}

/**
 * Batch normalisation (Ioffe & Szegedy 2015), as `torch.nn.BatchNorm3d` and SpikingJelly's `layer.BatchNorm3d`:
 * `y = (x − mean)/√(var + eps)·weight + bias`. For `[N, C, D, H, W]`; with a leading T in step mode `'m'`, where T and
 * N are one batch and the running statistics move once. Training with one value per channel throws
 * `ERR_BATCH_STATISTICS`.
 */
export class BatchNorm3d extends NormLayer {
  /**
   * Throws `ERR_ARGUMENT` for what is out of its range.
   * @param numFeatures C, the number of channels
   * @param options PyTorch's, in camelCase
   */
  constructor(numFeatures: number, options?: NormOptions) {
    super(preset, { spatial: 3, numFeatures }, readNormOptions(new.target.name, options, arguments, LEADING))
  }
}
