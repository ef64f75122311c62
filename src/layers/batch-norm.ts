/**
 * Batch normalisation (Ioffe & Szegedy 2015), semantics of `torch.nn.BatchNorm*d` and of SpikingJelly's layers of the
 * same name: `y = (x − mean)/√(var + eps) · weight + bias`. In step mode `'m'` T and N are one batch, with one update
 * of the running statistics over all T·N; T single steps make T updates.
 */
import { NormLayer, type NormOptions, type NormPreset } from './norm-layer.js'

const preset: NormPreset = {
  statistics: 'shared',
  weight: 'shared',
  bias: 'shared',
  timeScale: false,
  stepModes: ['s', 'm'],
}

/** For `[N, C]` or `[N, C, L]`; with a leading T in step mode `'m'`. */
export class BatchNorm1d extends NormLayer {
  constructor(numFeatures: number, options: NormOptions = {}) {
    super(preset, { spatial: 1, numFeatures }, options)
  }
}

/** For `[N, C, H, W]`; with a leading T in step mode `'m'`. */
export class BatchNorm2d extends NormLayer {
  constructor(numFeatures: number, options: NormOptions = {}) {
    super(preset, { spatial: 2, numFeatures }, options)
  }
}

/** For `[N, C, D, H, W]`; with a leading T in step mode `'m'`. */
export class BatchNorm3d extends NormLayer {
  constructor(numFeatures: number, options: NormOptions = {}) {
    super(preset, { spatial: 3, numFeatures }, options)
  }
}
