import {
  argumentError,
  expectDict,
  notNegative,
  readOptions,
  refuseSurplus,
  type Signature,
  wholeNumber,
} from '../../arguments.js'
import { SpikenormError } from '../../errors.js'
import { formatValue } from '../../format-value.js'
import { describeValues } from '../../module-text.js'
import { changed } from '../../rollback.js'
import { Tensor, tensor } from '../../tensor.js'
import { Optimizer } from './optimizer.js'

/** Options of {@link CosineAnnealingLR}. */
export interface CosineAnnealingOptions {
  /** Steps from the initial learning rate down to `etaMin`. */
  tMax: number
  /** Learning rate after tMax steps. Default 0. */
  etaMin?: number
}

const SIGNATURE: Signature<CosineAnnealingOptions> = {
  leading: ['optimizer'],
  options: { tMax: (where, name, value) => wholeNumber(where, name, value), etaMin: notNegative },
  positional: ['tMax', 'etaMin'],
}

/** What the schedule's state is made of; every entry is a tensor of shape []. */
const KEYS = ['last_epoch', 'base_lr', 'last_lr'] as const

type State = Record<(typeof KEYS)[number], number>

/**
 * `torch.optim.lr_scheduler.CosineAnnealingLR`, in its recursive form: each step moves the optimiser's present learning rate,
 * so that one set by hand is gone on from. Left alone, it is etaMin + (lr − etaMin)·(1 + cos(π·n/tMax))/2 after n steps, where
 * lr is that at construction. Past tMax it rises again.
 */
export class CosineAnnealingLR {
  /** Whose learning rate is set. */
  readonly optimizer: Optimizer
  /** Steps from the initial learning rate down to `etaMin`. */
  readonly tMax: number
  /** Learning rate after tMax steps. */
  readonly etaMin: number
  #baseLr: number
  #lastEpoch = 0
  #lastLr: number

  /** Throws `ERR_ARGUMENT` for a tMax that is no whole number above 0. */
  constructor(optimizer: Optimizer, options: CosineAnnealingOptions) {
    const name = new.target.name
    const { tMax, etaMin = 0 } = readOptions(name, options, arguments, SIGNATURE)
    if (!(optimizer instanceof Optimizer)) throw argumentError(name, 'optimizer', 'an optimiser', optimizer)
    if (tMax === undefined) throw argumentError(name, 'tMax', 'a whole number >= 1', tMax)
    this.optimizer = optimizer
    this.tMax = tMax
    this.etaMin = etaMin
    this.#baseLr = optimizer.lr
    this.#lastLr = optimizer.lr
  }

  /** Learning rate at construction, PyTorch's `base_lrs[0]`. */
  get baseLr(): number {
    return this.#baseLr
  }

  /** Steps taken; PyTorch's `last_epoch`. */
  get lastEpoch(): number {
    return this.#lastEpoch
  }

  /** The learning rate that the latest step has set, in an array as in PyTorch, where there is one for each group of parameters. */
  getLastLr(): [number] {
    return [this.#lastLr]
  }

  /** The class, its options and where it is. */
  toString(): string {
    return describeValues(this, ['baseLr', 'lastEpoch'])
  }

  /** What JSON says of a schedule: the text of {@link toString}. */
  toJSON(): string {
    return this.toString()
  }

  /** @internal What Node prints. */
  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString()
  }

  /** Sets the optimiser's learning rate for the next epoch. */
  step(): void {
    refuseSurplus('step', arguments, [])
    const epoch = this.#lastEpoch + 1
    this.#keep()
    this.optimizer.lr = this.#next(epoch, this.optimizer.lr)
    this.#lastLr = this.optimizer.lr
    this.#lastEpoch = epoch
  }

  /** Says how to undo what comes next, where that is part of a call that may yet throw. */
  #keep(): void {
    const [epoch, baseLr, lastLr] = [this.#lastEpoch, this.#baseLr, this.#lastLr]
    changed({
      undo: () => {
        this.#lastEpoch = epoch
        this.#baseLr = baseLr
        this.#lastLr = lastLr
      },
    })
  }

  /** The learning rate after `epoch` steps, from that of the step before. */
  #next(epoch: number, lr: number): number {
    const { tMax, etaMin } = this
    // One past the minimum the ratio below would be 0/0.
    if ((epoch - 1 - tMax) % (2 * tMax) === 0) {
      return lr + ((this.#baseLr - etaMin) * (1 - Math.cos(Math.PI / tMax))) / 2
    }
    const now = 1 + Math.cos((Math.PI * epoch) / tMax)
    const before = 1 + Math.cos((Math.PI * (epoch - 1)) / tMax)
    return (now / before) * (lr - etaMin) + etaMin
  }

  /**
   * Where the schedule is, by PyTorch's names: `last_epoch` (int64), `base_lr` and `last_lr` (float64), each of shape []. Fits
   * `saveSafetensors`. The learning rate itself is in the optimiser's state dict; tMax and etaMin are the constructor's.
   */
  stateDict(): Record<string, Tensor> {
    return {
      last_epoch: tensor(this.#lastEpoch, [], { dtype: 'int64' }),
      base_lr: tensor(this.#baseLr, [], { dtype: 'float64' }),
      last_lr: tensor(this.#lastLr, [], { dtype: 'float64' }),
    }
  }

  /**
   * Restores what {@link stateDict} returned; with the optimiser's own state restored, before or after, training goes on as if
   * it had not been interrupted. Throws `ERR_STATE_DICT`, having changed nothing, where it does not fit.
   */
  loadStateDict(dict: Record<string, Tensor>): void {
    const state = this.#read(dict)
    this.#keep()
    this.#lastEpoch = state.last_epoch
    this.#baseLr = state.base_lr
    this.#lastLr = state.last_lr
  }

  #read(dict: unknown): State {
    const where = `${this.constructor.name}: loadStateDict`
    const refuse = (problem: string) => new SpikenormError('ERR_STATE_DICT', `${where}: ${problem}`)
    const entries = expectDict(where, dict)
    const unexpected = Object.keys(entries).filter((key) => !(KEYS as readonly string[]).includes(key))
    if (unexpected.length > 0) throw refuse(`unexpected keys: ${formatValue(unexpected)}`)
    const state = KEYS.map((key) => {
      const value = Object.hasOwn(entries, key) ? entries[key] : undefined
      if (value === undefined) throw refuse(`missing key: ${key}`)
      if (!(value instanceof Tensor)) throw refuse(`${key}: expected a Tensor, got ${formatValue(value)}`)
      if (value.size !== 1) throw refuse(`${key}: expected shape [], got [${value.shape.join(', ')}]`)
      const number = value.item()
      const isFitting = key === 'last_epoch' ? Number.isSafeInteger(number) : Number.isFinite(number)
      if (!isFitting || number < 0) throw refuse(`${key}: expected a number >= 0, got ${number}`)
      return [key, number]
    })
    return Object.fromEntries(state) as State
  }
}
