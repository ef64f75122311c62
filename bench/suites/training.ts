// Seconds per epoch of the demo's net, beside the same net in PyTorch and SpikingJelly: same weights, same digits in the
// same order, epochs in turns. That the losses agree shows that it is the same net.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { functional, type Module, manualSeed, nn, optim, randperm, saveSafetensors, tensor } from 'spikenorm'
import {
  type Batch,
  batches,
  CLASSES,
  firstOf,
  type Images,
  loadDigits,
  PIXELS,
  SIDE,
} from '../../examples/digits/data.js'
import { buildNet, CHANNELS } from '../../examples/digits/model.js'
import type { Context } from '../context.js'
import { quantile } from '../measure/statistics.js'
import type { PeerProcess } from '../peers/peer.js'
import { Progress } from '../report/progress.js'
import type { TrainingRow } from '../report/results.js'

const NET = { depth: 8, steps: 4, vth: 1 }
const BATCH = 16
const LEARNING_RATE = 2e-3
const EPOCHS = 9
const QUICK = { images: 64, epochs: 2 }
const SEED = 0

export async function runTraining(context: Context): Promise<TrainingRow[]> {
  const { options } = context
  const all = loadDigits().train
  const images = options.quick ? firstOf(all, QUICK.images) : all
  const epochs = options.quick ? QUICK.epochs : EPOCHS
  // The demo's names of the norms are those of the layers here.
  const norms = options.layers
  const progress = new Progress('training', norms.length * context.devices.length)
  const rows: TrainingRow[] = []
  for (const device of context.devices) {
    for (const norm of norms) {
      if (context.isOver(`training ${norm} on ${device}`)) continue
      progress.next(`${norm} on ${device}`)
      rows.push(await measure(context, { norm, device, epochs }, images))
    }
  }
  progress.stop()
  return rows
}

type Given = Pick<TrainingRow, 'device' | 'epochs'> & { norm: Parameters<typeof buildNet>[0]['norm'] }

async function measure(context: Context, given: Given, images: Images): Promise<TrainingRow> {
  const { norm, device, epochs } = given
  const { net } = buildNet({ norm, ...NET }, SEED, device)
  manualSeed(SEED)
  const orders = Array.from({ length: epochs }, () => randperm(images.count))
  const row: TrainingRow = { ...given, threads: context.options.threads, seconds: [], loss: [], peers: {} }
  const theirs = { seconds: [] as number[], loss: [] as number[] }
  const absent =
    context.peer && (await preparePeer(context.peer, given, context.options.threads, net, images, orders))
  const adam = new optim.Adam(net.parameters(), { lr: LEARNING_RATE })
  net.train()
  for (const order of orders) {
    const { seconds, loss } = trainEpoch(net, adam, images, order, device)
    row.seconds.push(seconds)
    row.loss.push(loss)
    if (!context.peer || absent) continue
    const reply = (await context.peer.ask({ do: 'round', key: 'training' })) as unknown as typeof given & {
      seconds: number
      loss: number
      absent?: string
    }
    if (reply.absent) throw new Error(`training in Python: ${reply.absent}`)
    theirs.seconds.push(reply.seconds)
    theirs.loss.push(reply.loss)
  }
  if (absent) row.peers.spikingjelly = { absent }
  else if (context.peer) {
    row.peers.spikingjelly = { ...theirs, speedup: median(theirs.seconds) / median(row.seconds) }
    await context.peer.ask({ do: 'drop', key: 'training' })
  }
  net.dispose()
  return row
}

export const median = (values: readonly number[]) =>
  quantile(
    [...values].sort((a, b) => a - b),
    0.5,
  )

/** Hands over weights, images and order; returns why that side cannot take part, if so. */
async function preparePeer(
  peer: PeerProcess,
  { norm, device }: Given,
  threads: number,
  net: Module,
  images: Images,
  orders: number[][],
): Promise<string | undefined> {
  const folder = mkdtempSync(join(tmpdir(), 'spikenorm-bench-'))
  try {
    const weights = join(folder, 'weights.safetensors')
    const data = join(folder, 'data.safetensors')
    saveSafetensors(weights, net.stateDict())
    saveSafetensors(data, {
      pixels: tensor(images.pixels, [images.count, PIXELS]),
      labels: tensor([...images.labels], [images.count], { dtype: 'int64' }),
      order: tensor(orders.flat(), [orders.length, images.count], { dtype: 'int64' }),
    })
    const reply = await peer.ask({
      ...{ do: 'prepare', kind: 'training', key: 'training', threads, device, norm, weights, data },
      ...{ depth: NET.depth, steps: NET.steps, channels: CHANNELS, classes: CLASSES, side: SIDE },
      ...{ batch: BATCH, lr: LEARNING_RATE },
    })
    return reply.absent
  } finally {
    rmSync(folder, { recursive: true })
  }
}

function trainEpoch(
  net: Module,
  adam: optim.Adam,
  images: Images,
  order: number[],
  device: TrainingRow['device'],
) {
  const started = performance.now()
  let total = 0
  for (const batch of batches(images, BATCH, NET.steps, order)) total += trainBatch(net, adam, batch, device)
  return { seconds: (performance.now() - started) / 1000, loss: total / images.count }
}

function trainBatch(net: Module, adam: optim.Adam, batch: Batch, device: TrainingRow['device']): number {
  using pixels = tensor(batch.pixels, [NET.steps, batch.size, 1, SIDE, SIDE], { device })
  using logits = net.forward(pixels)
  const { loss, grad } = nn.crossEntropy(logits, batch.labels)
  using _grad = grad
  using _unused = net.backward(grad)
  adam.step()
  adam.zeroGrad()
  functional.resetNet(net)
  return loss * batch.size
}
