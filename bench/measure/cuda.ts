// The same on a CUDA device, timed there by events: passes captured in a graph, so that what the host spends on launching
// does not count, and the same passes launched one by one, where it does.

import { cuda, type Device, type Tensor } from 'spikenorm'
import { randomTensor } from '../cases/data.js'
import type { Direction, LayerName, LayerOptions } from '../cases/layers.js'
import type { Shape } from '../cases/shapes.js'
import { COPY } from './copy-team.js'
import { type BufferSet, createSets, disposeSets, OURS, prepareRound } from './native.js'
import type { Contestant, Round } from './rounds.js'

interface Event {
  record(): void
  /** Milliseconds from this event to `end`. */
  elapsedTime(end: Event): number
}

/** Of `cuda`, what is used here. */
interface CudaTiming {
  Event: new () => Event
  synchronize(): void
  graph(body: () => void): { replay(): void }
}

const timing = cuda as unknown as CudaTiming

/** µs on the device, from before the first of what `body` launches to after the last. */
export function timedByEvents(body: () => void): number {
  const start = new timing.Event()
  const end = new timing.Event()
  start.record()
  body()
  end.record()
  timing.synchronize()
  return start.elapsedTime(end) * 1000
}

/** How passes reach the device: captured once and replayed, or launched anew each time. */
export const LAUNCHES = ['graph', 'eager'] as const
export type Launch = (typeof LAUNCHES)[number]

/** One sample is the mean of the passes over all sets, since a graph is timed as a whole. */
abstract class OnCuda implements Contestant {
  abstract readonly name: string
  readonly #graphs = new Map<Direction, { replay(): void }>()

  protected abstract passes(direction: Direction): void
  protected abstract readonly setCount: number
  abstract dispose(): void

  constructor(readonly launch: Launch) {}

  abstract round(): Round

  protected sample(direction: Direction): number {
    if (this.launch === 'eager') return timedByEvents(() => this.passes(direction)) / this.setCount
    let graph = this.#graphs.get(direction)
    if (!graph) {
      graph = timing.graph(() => this.passes(direction))
      this.#graphs.set(direction, graph)
    }
    const captured = graph
    return timedByEvents(() => captured.replay()) / this.setCount
  }
}

export class NativeOnCuda extends OnCuda {
  readonly name = OURS
  readonly #sets: BufferSet[]
  #isCaptured = false

  constructor(launch: Launch, layer: LayerName, shape: Shape, options: LayerOptions, sets: number) {
    super(launch)
    this.#sets = createSets(layer, shape, options, sets)
    // Once outside any graph: what a first call sets up (modules, memory) cannot be captured.
    prepareRound(this.#sets)
    for (const direction of ['forward', 'backward'] as const) this.passes(direction)
    timing.synchronize()
  }

  protected get setCount(): number {
    return this.#sets.length
  }

  protected passes(direction: Direction): void {
    for (const set of this.#sets) {
      if (direction === 'forward') set.y = set.layer.forward(set.x)
      else set.dx = set.layer.backward(set.dy)
    }
  }

  round(): Round {
    // A captured pass writes where it wrote when it was captured: its outputs must stay.
    if (!this.#isCaptured) prepareRound(this.#sets)
    const round = { forward: [this.sample('forward')], backward: [this.sample('backward')] }
    this.#isCaptured = this.launch === 'graph'
    return round
  }

  dispose(): void {
    disposeSets(this.#sets)
  }
}

/** A device-to-device copy of U bytes from each set's source to its target. */
export class CopyOnCuda extends OnCuda {
  readonly name = COPY
  readonly #sets: { from: Tensor; to: Tensor }[]

  constructor(
    launch: Launch,
    shape: Shape,
    { dtype, device }: { dtype: LayerOptions['dtype']; device: Device },
    sets: number,
  ) {
    super(launch)
    const from = randomTensor(1, shape.dims, dtype, device)
    this.#sets = Array.from({ length: sets }, (_, at) => ({
      from: at === 0 ? from : from.clone(),
      to: from.clone(),
    }))
  }

  protected get setCount(): number {
    return this.#sets.length
  }

  protected passes(): void {
    for (const { from, to } of this.#sets) to.copy_(from)
  }

  round(): Round {
    return { forward: [this.sample('forward')], backward: [] }
  }

  dispose(): void {
    for (const { from, to } of this.#sets) {
      from.dispose()
      to.dispose()
    }
  }
}
