// What a call from JavaScript costs, on tensors so small that arithmetic is next to nothing: T calls of one time step,
// in training mode, recorded, by code that has been compiled.
//
// How much of that is the call itself: the same calls are made of a layer with one channel, which crosses the same
// boundary, makes as many tensors and gradients, and computes 1/64. Probes cross it and come back with nothing, or with
// a new tensor. Outputs are disposed of outside of what is timed, or never ("left to the collector"), where a call's
// time has its share of watching them and of collecting garbage.

import { getNumThreads, type Module, type Tensor, zeros } from 'spikenorm'
import { randomTensor } from '../cases/data.js'
import { createLayer, type Direction, LABELS, type LayerName } from '../cases/layers.js'
import { parseShape, type Shape } from '../cases/shapes.js'
import type { Context } from '../context.js'
import { timed } from '../measure/native.js'
import { alternate, type Contestant, type Round } from '../measure/rounds.js'
import { summarise, type Timing } from '../measure/statistics.js'
import { prepareSteps } from '../peers/contestant.js'
import { Progress } from '../report/progress.js'
import type { NapiRow, PeerCell } from '../report/results.js'

const SHAPE = parseShape('16,1,64,4x4')
const ONE_CHANNEL = parseShape('16,1,1,4x4')
const [T] = SHAPE.dims as [number]
/** tdBN and TEBN take all steps at once. */
const LAYERS: LayerName[] = ['batchnorm', 'bntt', 'neunorm']
const PROBE_CALLS = 1000
/** Sequences before anything is timed: calls are compiled after some thousands. */
const COMPILE_SEQUENCES = 500
/** Sequences of a round that only bring caches back to what they are in a loop. */
const WARM_SEQUENCES = 4
/** Sequences of a round whose median is its time. */
const TIMED_SEQUENCES = 15
const SINGLE = 'single'
const OF_ONE_CHANNEL = 'one channel'
const LEFT = 'left'

export async function runNapi(context: Context): Promise<NapiRow[]> {
  const { options } = context
  const layers = LAYERS.filter((layer) => options.layers.includes(layer))
  const progress = new Progress('napi', layers.length + 1)
  const rows: NapiRow[] = []
  progress.next('probes')
  for (const [what, call] of probes()) {
    const contestant = { name: what, round: () => probe(call), dispose() {} }
    const time = (await alternate([contestant], options)).get(what)?.forward as Timing
    rows.push({ what, direction: null, time, oneChannel: null, peers: {} })
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
    ['a new tensor, disposed of', () => small.reshape([64]).dispose()],
    ['a new tensor, left to the collector', () => void small.reshape([64])],
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
  const contestants: Contestant[] = [
    new SingleSteps(SINGLE, layer, SHAPE),
    new SingleSteps(OF_ONE_CHANNEL, layer, ONE_CHANNEL),
    new SingleSteps(LEFT, layer, SHAPE),
  ]
  const theirs = peer ? await prepareSteps(peer, layer, SHAPE.dims, options.threads) : undefined
  if (theirs && !('absent' in theirs)) contestants.push(theirs)
  const timings = await alternate(contestants, options)
  for (const contestant of contestants) await contestant.dispose()
  const what = LABELS[layer]
  const disposed = options.directions.map((direction): NapiRow => {
    const time = timings.get(SINGLE)?.[direction] as Timing
    const other = theirs && timings.get('spikingjelly')?.[direction]
    const cell: PeerCell | undefined = other
      ? { time: other, speedup: other.median / time.median }
      : theirs && 'absent' in theirs
        ? { absent: theirs.absent }
        : undefined
    const oneChannel = timings.get(OF_ONE_CHANNEL)?.[direction] ?? null
    return { what, direction, time, oneChannel, peers: cell ? { spikingjelly: cell } : {} }
  })
  const left = options.directions.map((direction): NapiRow => {
    const time = timings.get(LEFT)?.[direction] as Timing
    return { what: `${what}, left to the collector`, direction, time, oneChannel: null, peers: {} }
  })
  return [...disposed, ...left]
}

/** Sequences: T forwards of one step, then T backwards, latest first. */
class SingleSteps implements Contestant {
  readonly #layer: Module
  readonly #x: Tensor
  readonly #dy: Tensor

  constructor(
    readonly name: string,
    layer: LayerName,
    shape: Shape,
  ) {
    const dims = shape.dims.slice(1)
    this.#x = randomTensor(1, dims, 'float32', 'cpu')
    this.#dy = randomTensor(2, dims, 'float32', 'cpu')
    this.#layer = createLayer(layer, shape, { dtype: 'float32', device: 'cpu', stepMode: 's' })
    for (let i = 0; i < COMPILE_SEQUENCES; i++) this.#sequence()
  }

  round(): Round {
    for (let i = 0; i < WARM_SEQUENCES; i++) this.#sequence()
    const sequences = Array.from({ length: TIMED_SEQUENCES }, () => this.#sequence())
    const median = (direction: Direction) => summarise(sequences.map((times) => times[direction])).median
    return { forward: [median('forward')], backward: [median('backward')] }
  }

  /** µs per call. */
  #sequence(): Record<Direction, number> {
    const made: Tensor[] = []
    const forward = timed(() => {
      for (let t = 0; t < T; t++) made.push(this.#layer.forward(this.#x))
    })
    const backward = timed(() => {
      for (let t = 0; t < T; t++) made.push(this.#layer.backward(this.#dy))
    })
    if (this.name !== LEFT) for (const tensor of made) tensor.dispose()
    this.#layer.reset()
    this.#layer.zeroGrad()
    return { forward: forward / T, backward: backward / T }
  }

  dispose(): void {
    for (const owner of [this.#layer, this.#x, this.#dy]) owner.dispose()
  }
}
