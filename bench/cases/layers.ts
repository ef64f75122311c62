// The layers as rows of one table.

import {
  BatchNorm1d,
  BatchNorm2d,
  BatchNorm3d,
  BatchNormThroughTime1d,
  BatchNormThroughTime2d,
  BatchNormThroughTime3d,
  type Device,
  type DType,
  type Module,
  NeuNorm,
  type StepMode,
  TemporalEffectiveBatchNorm1d,
  TemporalEffectiveBatchNorm2d,
  TemporalEffectiveBatchNorm3d,
  ThresholdDependentBatchNorm1d,
  ThresholdDependentBatchNorm2d,
  ThresholdDependentBatchNorm3d,
} from 'spikenorm'
import type { Shape } from './shapes.js'

export const LAYERS = ['batchnorm', 'tdbn', 'tebn', 'bntt', 'neunorm'] as const
export type LayerName = (typeof LAYERS)[number]

export const LABELS: Record<LayerName, string> = {
  batchnorm: 'BatchNorm',
  tdbn: 'tdBN',
  tebn: 'TEBN',
  bntt: 'BNTT',
  neunorm: 'NeuNorm',
}

export const DIRECTIONS = ['forward', 'backward'] as const
export type Direction = (typeof DIRECTIONS)[number]

/**
 * The bytes a pass has to move, where U is one pass over the tensor: forward reads x and writes y, backward reads x and
 * dy and writes dx. NeuNorm's backward needs no x: in place of it, forward writes and backward reads the state, U / C.
 */
export function passBytes(layer: LayerName, direction: Direction, U: number, channels: number): number {
  if (layer === 'neunorm') return 2 * U + U / channels
  return direction === 'forward' ? 2 * U : 3 * U
}

export interface LayerOptions {
  dtype: DType
  device: Device
  /** Default `'m'`. */
  stepMode?: StepMode
}

/** Why a layer has nothing to say about a shape, or null. */
export function unsuited(layer: LayerName, { spatial }: Shape): string | null {
  return layer === 'neunorm' && spatial !== 2 ? 'NeuNorm takes images' : null
}

/** By the number of axes after the channel, less one. */
const CLASSES = {
  batchnorm: [BatchNorm1d, BatchNorm2d, BatchNorm3d],
  tdbn: [ThresholdDependentBatchNorm1d, ThresholdDependentBatchNorm2d, ThresholdDependentBatchNorm3d],
  tebn: [TemporalEffectiveBatchNorm1d, TemporalEffectiveBatchNorm2d, TemporalEffectiveBatchNorm3d],
  bntt: [BatchNormThroughTime1d, BatchNormThroughTime2d, BatchNormThroughTime3d],
} as const

export function createLayer(layer: LayerName, shape: Shape, given: LayerOptions): Module {
  const [T, , C, H, W] = shape.dims as [number, number, number, number, number]
  const options = { stepMode: 'm' as StepMode, ...given }
  const { stepMode: _, ...alwaysMulti } = options
  const at = Math.max(0, shape.spatial - 1) as 0 | 1 | 2
  switch (layer) {
    case 'batchnorm':
      return new CLASSES.batchnorm[at](C, options)
    case 'tdbn':
      return new CLASSES.tdbn[at](1, 1, C, alwaysMulti)
    case 'tebn':
      return new CLASSES.tebn[at](T, C, alwaysMulti)
    case 'bntt':
      return new CLASSES.bntt[at](T, C, options)
    case 'neunorm':
      return new NeuNorm(C, H, W, options)
  }
}
