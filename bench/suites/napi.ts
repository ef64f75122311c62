// What a call from JavaScript costs, on tensors so small that arithmetic is next to nothing: T calls of one time step.
//
// Three figures bound the share of the boundary. Probes cross it and come back with nothing, or with a new tensor. And
// BNTT and NeuNorm compute the very same in one multi-step call: per step, that is the arithmetic with one T-th of a
// call.

import { getNumThreads, type Module, type Tensor, zeros } from 'spikenorm'
import { randomTensor } from '../cases/data.js'
import { createLayer, LABELS, type LayerName } from '../cases/layers.js'
import { parseShape } from '../cases/shapes.js'
import type { Context } from '../context.js'
import { timed } from '../measure/native.js'
import { alternate, type Contestant, type Round } from '../measure/rounds.js'
import type { Timing } from '../measure/statistics.js'
import { prepareSteps } from '../peers/contestant.js'
import { Progress } from '../report/progress.js'
import type { NapiRow, PeerCell } from '../report/results.js'

const SHAPE = parseShape('16,1,64,4x4')
const [T] = SHAPE.dims as [number]
/** tdBN and TEBN take all steps at once. */
const LAYERS: LayerName[] = ['batchnorm', 'bntt', 'neunorm']
const PROBE_CALLS = 1000
const SINGLE = 'single'
const MULTI = 'multi'

export async function runNapi(context: Context): Promise<NapiRow[]> {
  const { options } = context
  const layers = LAYERS.filter((layer) => options.layers.includes(layer))
  const progress = new Progress('napi', layers.length + 1)
  const rows: NapiRow[] = []
  progress.next('probes')
  for (const [what, call] of probes()) {
    const contestant = { name: what, round: () => probe(call), dispose() {} }
    const time = (await alternate([contestant], options)).get(what)?.forward as Timing
    rows.push({ what, direction: null, time, inOneCall: null, peers: {} })
  }
  for (const layer of layers) {
    if (context.isOver(`napi ${LABELS[layer]}`)) continue
    progress.next(LABELS[layer])
    rows.push(...(await measure(context, layer)))
  }
  progress.stop()
  return rows
}

function probes(): [string, () => void][] {
  const small = zeros([64])
  return [
    ['there and back', () => void getNumThreads()],
    ['a new tensor, disposed', () => small.reshape([64]).dispose()],
  ]
}

function probe(call: () => void): Round {
  const us = timed(() => {
    for (let i = 0; i < PROBE_CALLS; i++) call()
  })
  return { forward: [us / PROBE_CALLS], backward: [] }
}

async function measure(context: Context, layer: LayerName): Promise<NapiRow[]> {
  const { options, peer } = context
  const sameInOneCall = layer !== 'batchnorm'
  const contestants: Contestant[] = [new SingleSteps(layer), ...(sameInOneCall ? [new OneCall(layer)] : [])]
  const theirs = peer ? await prepareSteps(peer, layer, SHAPE.dims, options.threads) : undefined
  if (theirs && !('absent' in theirs)) contestants.push(theirs)
  const timings = await alternate(contestants, options)
  for (const contestant of contestants) await contestant.dispose()
  return options.directions.map((direction): NapiRow => {
    const time = timings.get(SINGLE)?.[direction] as Timing
    const other = theirs && timings.get('spikingjelly')?.[direction]
    const cell: PeerCell | undefined = other
      ? { time: other, speedup: other.median / time.median }
      : theirs && 'absent' in theirs
        ? { absent: theirs.absent }
        : undefined
    return {
      what: LABELS[layer],
      direction,
      time,
      inOneCall: timings.get(MULTI)?.[direction] ?? null,
      peers: cell ? { spikingjelly: cell } : {},
    }
  })
}

/** T forwards of one step, then T backwards, latest first. */
class SingleSteps implements Contestant {
  readonly name = SINGLE
  readonly #layer: Module
  readonly #x = randomTensor(1, SHAPE.dims.slice(1), 'float32', 'cpu')
  readonly #dy = randomTensor(2, SHAPE.dims.slice(1), 'float32', 'cpu')

  constructor(layer: LayerName) {
    this.#layer = createLayer(layer, SHAPE, { dtype: 'float32', device: 'cpu', stepMode: 's' })
  }

  round(): Round {
    this.#layer.reset()
    this.#layer.zeroGrad()
    const made: Tensor[] = []
    const forward = timed(() => {
      for (let t = 0; t < T; t++) made.push(this.#layer.forward(this.#x))
    })
    const backward = timed(() => {
      for (let t = 0; t < T; t++) made.push(this.#layer.backward(this.#dy))
    })
    for (const tensor of made) tensor.dispose()
    return { forward: [forward / T], backward: [backward / T] }
  }

  dispose(): void {
    for (const owner of [this.#layer, this.#x, this.#dy]) owner.dispose()
  }
}

/** All steps in one call, as a time per step. */
class OneCall implements Contestant {
  readonly name = MULTI
  readonly #layer: Module
  readonly #x = randomTensor(1, SHAPE.dims, 'float32', 'cpu')
  readonly #dy = randomTensor(2, SHAPE.dims, 'float32', 'cpu')

  constructor(layer: LayerName) {
    this.#layer = createLayer(layer, SHAPE, { dtype: 'float32', device: 'cpu' })
  }

  round(): Round {
    this.#layer.reset()
    this.#layer.zeroGrad()
    const made: Tensor[] = []
    const forward = timed(() => made.push(this.#layer.forward(this.#x)))
    const backward = timed(() => made.push(this.#layer.backward(this.#dy)))
    for (const tensor of made) tensor.dispose()
    return { forward: [forward / T], backward: [backward / T] }
  }

  dispose(): void {
    for (const owner of [this.#layer, this.#x, this.#dy]) owner.dispose()
  }
}
