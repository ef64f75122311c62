// The same on a CUDA device, timed there by events: passes captured in a graph, so that what the host spends on launching
// does not count, and the same passes launched one by one, where it does.

import { cuda, type Device, type Tensor } from 'spikenorm'
import { randomTensor } from '../cases/data.js'
import type { Direction, LayerName, LayerOptions } from '../cases/layers.js'
import type { Shape } from '../cases/shapes.js'
import { COPY } from './copy-team.js'
import { type BufferSet, createSets, disposeSets, OURS, prepareRound } from './native.js'
import type { Contestant, Round } from './rounds.js'

/** How passes reach the device: captured once and replayed, or launched anew each time. */
export const LAUNCHES = ['graph', 'eager'] as const
export type Launch = (typeof LAUNCHES)[number]

type Graph = ReturnType<typeof cuda.graph>

/** Passes over all sets of a contestant, timed as a whole: one sample is their mean. */
class Clock {
  readonly #start: InstanceType<typeof cuda.Event>
  readonly #end: InstanceType<typeof cuda.Event>
  readonly #graphs = new Map<Direction, Graph>()

  constructor(
    readonly launch: Launch,
    readonly device: Device,
  ) {
    this.#start = new cuda.Event(device)
    this.#end = new cuda.Event(device)
  }

  /** µs of one of the `count` passes that `passes` launches. */
  sample(direction: Direction, count: number, passes: () => void): number {
    let run = passes
    if (this.launch === 'graph') {
      const graph = this.#graphs.get(direction) ?? cuda.graph(passes, { device: this.device })
      this.#graphs.set(direction, graph)
      run = () => graph.replay()
    }
    this.#start.record()
    run()
    this.#end.record()
    return (this.#start.elapsedTime(this.#end) * 1000) / count
  }

  dispose(): void {
    for (const owner of [this.#start, this.#end, ...this.#graphs.values()]) owner.dispose()
  }
}

export class NativeOnCuda implements Contestant {
  readonly name = OURS
  readonly #clock: Clock
  readonly #sets: BufferSet[]
  #isCaptured = false

  constructor(launch: Launch, layer: LayerName, shape: Shape, options: LayerOptions, sets: number) {
    this.#clock = new Clock(launch, options.device)
    this.#sets = createSets(layer, shape, options, sets)
    // Once outside any graph: what a first call sets up (modules, memory) cannot be captured.
    prepareRound(this.#sets)
    for (const direction of ['forward', 'backward'] as const) this.#passes(direction)
    cuda.synchronize(options.device)
  }

  round(): Round {
    // A captured pass writes where it wrote when it was captured: its outputs must stay.
    if (!this.#isCaptured) prepareRound(this.#sets)
    const round = { forward: [this.#sample('forward')], backward: [this.#sample('backward')] }
    this.#isCaptured = this.#clock.launch === 'graph'
    return round
  }

  dispose(): void {
    this.#clock.dispose()
    disposeSets(this.#sets)
  }

  #sample(direction: Direction): number {
    return this.#clock.sample(direction, this.#sets.length, () => this.#passes(direction))
  }

  #passes(direction: Direction): void {
    for (const set of this.#sets) {
      if (direction === 'forward') set.y = set.layer.forward(set.x)
      else set.dx = set.layer.backward(set.dy)
    }
  }
}

/** A device-to-device copy of U bytes from each set's source to its target. */
export class CopyOnCuda implements Contestant {
  readonly name = COPY
  readonly #clock: Clock
  readonly #sets: { from: Tensor; to: Tensor }[]

  constructor(launch: Launch, shape: Shape, { dtype, device }: LayerOptions, sets: number) {
    this.#clock = new Clock(launch, device)
    const from = randomTensor(1, shape.dims, dtype, device)
    this.#sets = Array.from({ length: sets }, (_, at) => ({
      from: at === 0 ? from : from.clone(),
      to: from.clone(),
    }))
  }

  /** The time of a copy in `forward`. */
  round(): Round {
    const copies = () => {
      for (const { from, to } of this.#sets) to.copy_(from)
    }
    return { forward: [this.#clock.sample('forward', this.#sets.length, copies)], backward: [] }
  }

  dispose(): void {
    this.#clock.dispose()
    for (const { from, to } of this.#sets) {
      from.dispose()
      to.dispose()
    }
  }
}
