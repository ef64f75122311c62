// What a run leaves behind: the numbers of results.json, which are also all that the report is drawn from.

import type { NormName, Options } from './options.js'

export const LABELS: Record<NormName, string> = {
  none: 'none',
  batchnorm: 'BatchNorm',
  tdbn: 'tdBN',
  tebn: 'TEBN',
  bntt: 'BNTT',
  neunorm: 'BN + NeuNorm',
}

export interface EpochResult {
  epoch: number
  loss: number
  trainAccuracy: number
  validationAccuracy: number
  testAccuracy: number
  seconds: number
}

/** The untrained network on one batch of training images. */
export interface StartResult {
  /** L2 norm of the gradient that reaches the first convolution */
  gradientNorm: number
  /** share of neurons that fire in a time step, by layer */
  firingRates: number[]
}

/** Values on the way into the neurons of one layer, counted by time step. */
export interface Histogram {
  /** counts[step][bin] over low … high; the few values outside are in mean and deviation only */
  counts: number[][]
  low: number
  high: number
  mean: number[]
  deviation: number[]
}

/** The trained network on test images. */
export interface ProbeResult {
  firingRates: number[]
  /** counted from 1 */
  layer: number
  /** what the convolution gives: what would reach the neurons without the norm */
  before: Histogram
  /** what the norm makes of it: what does reach them; absent where there is no norm */
  after: Histogram | undefined
  raster: Raster
}

/** Spikes of the last layer at one pixel position for each of its channels, for one image of each digit. */
export interface Raster {
  digits: number[]
  /** pixels of each digit's image, 0 to 1 */
  images: number[][]
  neurons: number
  /** [digit][neuron] → the time steps, from 0, at which it fires */
  spikes: number[][][]
}

export interface RunResult {
  norm: NormName
  start: StartResult
  epochs: EpochResult[]
  /** the epoch of best validation accuracy, whose weights are kept; counted from 1 */
  bestEpoch: number
  /** of the kept weights, in percent like every accuracy here */
  testAccuracy: number
  /** the same, by a new network that read the weights from the file */
  reloadedAccuracy: number
  parameters: number
  weightsFile: string
  /** start to end of training, evaluation of every epoch included */
  seconds: number
  /** false where Ctrl-C ended the run before its last epoch */
  complete: boolean
  probe: ProbeResult
}

export interface Results {
  options: Options
  images: { train: number; validation: number; test: number }
  seconds: number
  interrupted: boolean
  runs: RunResult[]
}

export function lastOf<T>(values: readonly T[]): T {
  const last = values.at(-1)
  if (last === undefined) throw new Error('an empty list has no last value')
  return last
}
