// Training one network.

import { setImmediate } from 'node:timers/promises'
import { functional, type Module, manualSeed, nn, optim, randperm, saveSafetensors } from 'spikenorm'
import { type Batch, batchCount, batches, type Split } from './data.js'
import { evaluate, toTensor } from './measure.js'
import type { SpikingNet } from './model.js'
import type { Options } from './options.js'
import type { Progress } from './progress.js'
import type { EpochResult } from './results.js'

const LEARNING_RATE = 2e-3

export interface Training {
  epochs: EpochResult[]
  bestEpoch: number
  seconds: number
  complete: boolean
}

/** Trains `model`, writes its weights to `file` at every new best epoch, and stops after the batch in which `stop` fires. */
export async function train(
  { net }: SpikingNet,
  data: Split,
  options: Options,
  file: string,
  progress: Progress,
  stop: AbortSignal,
): Promise<Training> {
  const started = performance.now()
  const perEpoch = batchCount(data.train, options.batch)
  const optimizer = new optim.Adam(net.parameters(), { lr: LEARNING_RATE })
  const schedule = new optim.CosineAnnealingLR(optimizer, { tMax: perEpoch * options.epochs })
  // The batches come in the same order whatever the norm.
  manualSeed(options.seed)
  const epochs: EpochResult[] = []
  let best: EpochResult | undefined
  for (let epoch = 1; epoch <= options.epochs && !stop.aborted; epoch++) {
    const epochStarted = performance.now()
    const seen = { images: 0, loss: 0, correct: 0 }
    net.train()
    for (const batch of batches(data.train, options.batch, options.steps, randperm(data.train.count))) {
      const { loss, correct } = trainBatch(net, optimizer, batch, options)
      schedule.step()
      seen.images += batch.size
      seen.loss += loss * batch.size
      seen.correct += correct
      progress.batch(seen.loss / seen.images, (100 * seen.correct) / seen.images)
      // Training runs in native code on this thread; without a pause Ctrl-C would wait for the end.
      await setImmediate()
      if (stop.aborted) break
    }
    if (stop.aborted) break
    const result: EpochResult = {
      epoch,
      loss: seen.loss / seen.images,
      trainAccuracy: (100 * seen.correct) / seen.images,
      validationAccuracy: evaluate(net, data.validation, options),
      testAccuracy: evaluate(net, data.test, options),
      seconds: (performance.now() - epochStarted) / 1000,
    }
    epochs.push(result)
    // The later of two equals: it has seen more images.
    if (!best || result.validationAccuracy >= best.validationAccuracy) {
      best = result
      saveSafetensors(file, net.stateDict())
    }
    progress.epoch(result)
  }
  return {
    epochs,
    bestEpoch: best?.epoch ?? 0,
    seconds: (performance.now() - started) / 1000,
    complete: epochs.length === options.epochs,
  }
}

function trainBatch(net: Module, optimizer: optim.Adam, batch: Batch, options: Options) {
  using pixels = toTensor(batch, options)
  using logits = net.forward(pixels)
  const result = nn.crossEntropy(logits, batch.labels)
  using grad = result.grad
  using _unused = net.backward(grad)
  optimizer.step()
  optimizer.zeroGrad()
  functional.resetNet(net)
  // The only numbers that come back from the device, once the whole step is on its way.
  return { loss: result.loss, correct: result.correct }
}
