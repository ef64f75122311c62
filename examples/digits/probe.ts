// Looks into a trained network: what reaches the neurons of a layer at each time step, and which of them fire.

import { functional, noGrad, type Tensor } from 'spikenorm'
import { firstOf, type Images, oneOfEach, PIXELS, SIDE, toBatch } from './data.js'
import { firingRates, toTensor } from './measure.js'
import { type Block, CHANNELS, modulesOf, type SpikingNet } from './model.js'
import type { Options } from './options.js'
import type { Histogram, ProbeResult, Raster } from './results.js'

const BINS = 96
const PROBE_IMAGES = 200
// Neurons of the raster sit here: the middle of the image, where every digit has ink nearby.
const RASTER_PIXELS = [3 * SIDE + 3, 4 * SIDE + 4]

interface Trace {
  /** of one layer: values out of the convolution, and out of the norm where there is one */
  before: Tensor
  after: Tensor | undefined
}

export function probe(model: SpikingNet, images: Images, options: Options): ProbeResult {
  model.net.eval()
  return noGrad(() => {
    using pixels = toTensor(toBatch(firstOf(images, PROBE_IMAGES), options.steps), options)
    const layer = Math.ceil(options.depth / 2)
    const { before, after } = traceLayer(model, pixels, layer)
    return {
      firingRates: firingRates(model, pixels),
      layer,
      before: histogram(before, options),
      after: after && histogram(after, options),
      raster: raster(model, images, options),
    }
  })
}

function traceLayer({ net, blocks }: SpikingNet, pixels: Tensor, layer: number): Trace {
  const block = blocks[layer - 1] as Block
  const reached = run(blocks.slice(0, layer - 1), pixels)
  const before = block.conv.forward(reached)
  const after = block.norm?.forward(before)
  functional.resetNet(net)
  return { before, after }
}

function run(blocks: Block[], signal: Tensor): Tensor {
  return blocks.flatMap(modulesOf).reduce((value, module) => module.forward(value), signal)
}

/** Bins that are the same for every network of a comparison: they are set by the threshold alone. */
function histogram(values: Tensor, { vth }: Options): Histogram {
  const low = -3 * vth
  const high = 4 * vth
  const steps = values.shape[0] as number
  const flat = values.toFloat64Array()
  const size = flat.length / steps
  const result: Histogram = { counts: [], low, high, mean: [], deviation: [] }
  for (let step = 0; step < steps; step++) {
    const counts = new Array<number>(BINS).fill(0)
    const now = flat.subarray(step * size, (step + 1) * size)
    for (const value of now) {
      const bin = Math.floor(((value - low) / (high - low)) * BINS)
      if (bin >= 0 && bin < BINS) counts[bin] = (counts[bin] as number) + 1
    }
    const mean = now.reduce((sum, value) => sum + value, 0) / size
    const variance = now.reduce((sum, value) => sum + (value - mean) ** 2, 0) / size
    result.counts.push(counts)
    result.mean.push(mean)
    result.deviation.push(Math.sqrt(variance))
  }
  return result
}

function raster({ net, blocks }: SpikingNet, images: Images, options: Options): Raster {
  const chosen = oneOfEach(images)
  using pixels = toTensor(toBatch(chosen, options.steps), options)
  // Up to the last layer's neurons; what follows them (NeuNorm) no longer holds spikes.
  const last = blocks.at(-1) as Block
  const spikes = run([...blocks.slice(0, -1), { ...last, after: undefined }], pixels).toFloat64Array()
  functional.resetNet(net)
  const fires = (step: number, image: number, neuron: number) => {
    const channel = neuron % CHANNELS
    const pixel = RASTER_PIXELS[Math.floor(neuron / CHANNELS)] as number
    return spikes[((step * chosen.count + image) * CHANNELS + channel) * PIXELS + pixel] === 1
  }
  const steps = Array.from({ length: options.steps }, (_, step) => step)
  const neurons = RASTER_PIXELS.length * CHANNELS
  return {
    digits: [...chosen.labels],
    images: [...chosen.labels].map((_, i) => [...chosen.pixels.subarray(i * PIXELS, (i + 1) * PIXELS)]),
    neurons,
    spikes: [...chosen.labels].map((_, image) =>
      Array.from({ length: neurons }, (_, neuron) => steps.filter((step) => fires(step, image, neuron))),
    ),
  }
}
