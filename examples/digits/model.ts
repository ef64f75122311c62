// The network: depth × (3×3 convolution → norm → LIF neurons), then a linear classifier on the spikes.
//
// All runs build this one network. They differ in `normLayer` and `afterNeurons` alone, and start from the same weights.

import {
  BatchNorm2d,
  BatchNormThroughTime2d,
  type Device,
  type Module,
  manualSeed,
  NeuNorm,
  nn,
  TemporalEffectiveBatchNorm2d,
  ThresholdDependentBatchNorm2d,
} from 'spikenorm'
import { CLASSES, PIXELS, SIDE } from './data.js'
import type { NormName } from './options.js'

export const CHANNELS = 16

export interface NetShape {
  norm: NormName
  depth: number
  steps: number
  vth: number
}

/** One layer of the network; `norm` and `after` are absent in the runs that do without. */
export interface Block {
  conv: Module
  norm: Module | undefined
  neurons: Module
  after: Module | undefined
}

export interface SpikingNet {
  net: Module
  blocks: Block[]
}

export function buildNet(shape: NetShape, seed: number, device: Device): SpikingNet {
  manualSeed(seed)
  // Convolutions and classifier come first, so that a seed gives them the same weights whatever norm joins them.
  const convs = Array.from({ length: shape.depth }, (_, layer) => convolution(layer === 0 ? 1 : CHANNELS))
  const classifier = new nn.Linear(CHANNELS * PIXELS, CLASSES, { stepMode: 'm' })
  const blocks = convs.map((conv) => ({
    conv,
    norm: normLayer(shape),
    neurons: lifNeurons(shape.vth),
    after: afterNeurons(shape),
  }))
  const net = new nn.Sequential(...blocks.flatMap(modulesOf), new nn.Flatten({ stepMode: 'm' }), classifier)
  net.to(device)
  return { net, blocks }
}

export function modulesOf(block: Block): Module[] {
  return [block.conv, block.norm, block.neurons, block.after].filter((module) => module !== undefined)
}

function convolution(inChannels: number): Module {
  return new nn.Conv2d(inChannels, CHANNELS, 3, { padding: 1, bias: false, stepMode: 'm' })
}

function lifNeurons(vThreshold: number): Module {
  // decayInput: the norm's output enters the membrane undivided, since that is what tdBN scales to the threshold.
  return new nn.LIFNode({
    tau: 2,
    decayInput: false,
    vThreshold,
    surrogate: 'atan',
    detachReset: true,
    stepMode: 'm',
  })
}

function normLayer({ norm, steps, vth }: NetShape): Module | undefined {
  switch (norm) {
    case 'none':
      return undefined
    case 'batchnorm':
    case 'neunorm':
      return new BatchNorm2d(CHANNELS, { stepMode: 'm' })
    case 'tdbn':
      return new ThresholdDependentBatchNorm2d(1, vth, CHANNELS)
    case 'tebn':
      return new TemporalEffectiveBatchNorm2d(steps, CHANNELS)
    case 'bntt':
      return new BatchNormThroughTime2d(steps, CHANNELS, { stepMode: 'm' })
  }
}

/** NeuNorm normalises spikes, not currents: it follows the neurons, here in a network that BatchNorm keeps trainable. */
function afterNeurons({ norm }: NetShape): Module | undefined {
  return norm === 'neunorm' ? new NeuNorm(CHANNELS, SIDE, SIDE, { stepMode: 'm' }) : undefined
}
