import { finiteNumber, wholeNumber } from '../../arguments.js'
import type { Optimizer } from './optimizer.js'

/** Options of {@link CosineAnnealingLR}. */
export interface CosineAnnealingOptions {
  /** Steps from the initial learning rate down to `etaMin`. */
  tMax: number
  /** Learning rate after tMax steps. Default 0. */
  etaMin?: number
}

/**
 * `torch.optim.lr_scheduler.CosineAnnealingLR` in closed form: after n steps the optimiser's learning rate is
 * etaMin + (lr − etaMin)·(1 + cos(π·n/tMax))/2, where lr is that at construction. Past tMax it rises again.
 */
export class CosineAnnealingLR {
  /** Whose learning rate is set. */
  readonly optimizer: Optimizer
  /** Steps from the initial learning rate down to `etaMin`. */
  readonly tMax: number
  /** Learning rate after tMax steps. */
  readonly etaMin: number
  /** Learning rate at construction. */
  readonly baseLr: number
  #steps = 0

  /** Throws `ERR_ARGUMENT` for a tMax that is no whole number above 0. */
  constructor(optimizer: Optimizer, { tMax, etaMin = 0 }: CosineAnnealingOptions) {
    this.optimizer = optimizer
    this.tMax = wholeNumber('CosineAnnealingLR', 'tMax', tMax)
    this.etaMin = finiteNumber('CosineAnnealingLR', 'etaMin', etaMin, 0)
    this.baseLr = optimizer.lr
  }

  /** Steps taken; PyTorch's `last_epoch`. */
  get lastEpoch(): number {
    return this.#steps
  }

  /** Sets the optimiser's learning rate for the next epoch. */
  step(): void {
    this.#steps += 1
    const cosine = Math.cos((Math.PI * this.#steps) / this.tMax)
    this.optimizer.lr = this.etaMin + ((this.baseLr - this.etaMin) * (1 + cosine)) / 2
  }
}
