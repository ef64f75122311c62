// This library's layers as a contestant, timed call by call on the CPU.

import { emptyCache, type Module, type Tensor } from 'spikenorm'
import { randomiseParameters, randomTensor } from '../cases/data.js'
import { createLayer, type LayerName, type LayerOptions } from '../cases/layers.js'
import type { Shape } from '../cases/shapes.js'
import type { Contestant, Round } from './rounds.js'

export const OURS = 'spikenorm'

/** A layer of its own with its input, so that forwards of several sets can be pending at once, BNTT's too. */
export interface BufferSet {
  layer: Module
  x: Tensor
  dy: Tensor
  y: Tensor | undefined
  dx: Tensor | undefined
}

export function createSets(name: LayerName, shape: Shape, options: LayerOptions, count: number): BufferSet[] {
  const first = {
    x: randomTensor(1, shape.dims, options.dtype, options.device),
    dy: randomTensor(2, shape.dims, options.dtype, options.device),
  }
  return Array.from({ length: count }, (_, at) => {
    const layer = createLayer(name, shape, options)
    randomiseParameters(layer, 3)
    const { x, dy } = at === 0 ? first : { x: first.x.clone(), dy: first.dy.clone() }
    return { layer, x, dy, y: undefined, dx: undefined }
  })
}

export function disposeSets(sets: BufferSet[]): void {
  freeOutputs(sets)
  for (const { layer, x, dy } of sets) {
    for (const owner of [layer, x, dy]) owner.dispose()
  }
}

/**
 * Freed blocks are handed out again latest first, so the ones written longest ago are freed last: that keeps the outputs
 * of a cold measurement cold.
 */
export function freeOutputs(sets: BufferSet[]): void {
  for (const output of ['dx', 'y'] as const) {
    for (const set of sets.toReversed()) {
      set[output]?.dispose()
      set[output] = undefined
    }
  }
}

/** What neither direction's time should include. */
export function prepareRound(sets: BufferSet[]): void {
  freeOutputs(sets)
  for (const { layer } of sets) {
    layer.zeroGrad()
    layer.reset()
  }
}

export class NativeOnCpu implements Contestant {
  readonly name = OURS
  readonly #sets: BufferSet[]

  constructor(layer: LayerName, shape: Shape, options: LayerOptions, sets: number) {
    // What earlier cases left behind would count towards what the pool may keep.
    emptyCache()
    this.#sets = createSets(layer, shape, options, sets)
  }

  round(): Round {
    prepareRound(this.#sets)
    // All forwards before all backwards, so that backward finds its input as cold as forward did.
    return {
      forward: this.#sets.map((set) =>
        timed(() => {
          set.y = set.layer.forward(set.x)
        }),
      ),
      backward: this.#sets.map((set) =>
        timed(() => {
          set.dx = set.layer.backward(set.dy)
        }),
      ),
    }
  }

  dispose(): void {
    disposeSets(this.#sets)
  }
}

/** µs. */
export function timed(body: () => void): number {
  const started = process.hrtime.bigint()
  body()
  return Number(process.hrtime.bigint() - started) / 1000
}
