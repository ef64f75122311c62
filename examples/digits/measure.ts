// Measuring a network: its accuracy, how much of it fires, and how much gradient comes back before training.

import { functional, type Module, nn, noGrad, type Tensor, tensor } from 'spikenorm'
import { type Batch, batches, firstOf, type Images, inOrder, SIDE, toBatch } from './data.js'
import { buildNet, modulesOf, type NetShape, type SpikingNet } from './model.js'
import type { Options } from './options.js'
import type { StartResult } from './results.js'

const EVALUATION_BATCH = 180

/** Accuracy in percent, in evaluation mode. */
export function evaluate(net: Module, images: Images, options: Options): number {
  net.eval()
  let correct = 0
  for (const batch of batches(images, EVALUATION_BATCH, options.steps, inOrder(images.count))) {
    using pixels = toTensor(batch, options)
    using logits = net.forward(pixels)
    const result = nn.crossEntropy(logits, batch.labels)
    result.grad.dispose()
    correct += result.correct
    functional.resetNet(net)
  }
  return (100 * correct) / images.count
}

/** What the untrained network does with a first batch: how much of it fires, and how much gradient comes back. */
export function measureStart(shape: NetShape, images: Images, options: Options): StartResult {
  const { net, blocks } = buildNet(shape, options.seed, options.device)
  const batch = toBatch(firstOf(images, options.batch), options.steps)
  net.train()
  using pixels = toTensor(batch, options)
  using logits = net.forward(pixels)
  const { grad } = nn.crossEntropy(logits, batch.labels)
  using _grad = grad
  using _unused = net.backward(grad)
  const gradient = blocks[0]?.conv.parameters()[0]?.grad
  functional.resetNet(net)
  return {
    gradientNorm: gradient ? Math.hypot(...gradient.toFloat64Array()) : 0,
    // Batch statistics again: those are what the gradient above went through.
    firingRates: noGrad(() => firingRates({ net, blocks }, pixels)),
  }
}

/** The share of neurons that fire in a time step, layer by layer. */
export function firingRates({ net, blocks }: SpikingNet, pixels: Tensor): number[] {
  const rates: number[] = []
  let signal = pixels
  for (const block of blocks) {
    for (const module of modulesOf(block)) {
      signal = module.forward(signal)
      if (module === block.neurons) rates.push(meanOf(signal))
    }
  }
  functional.resetNet(net)
  return rates
}

export function toTensor(batch: Batch, options: Options): Tensor {
  const steps = batch.pixels.length / (batch.size * SIDE * SIDE)
  return tensor(batch.pixels, [steps, batch.size, 1, SIDE, SIDE], { device: options.device })
}

function meanOf(values: Tensor): number {
  return values.toFloat64Array().reduce((sum, value) => sum + value, 0) / values.size
}
