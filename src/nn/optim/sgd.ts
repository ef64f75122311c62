import { boolean, finiteNumber, notNegative, readOptions, type Signature } from '../../arguments.js'
import { SpikenormError } from '../../errors.js'
import { native } from '../../native.js'
import type { Parameter } from '../../parameter.js'
import {
  type BufferSpec,
  handles,
  type Moved,
  OPTIMIZER_OPTIONS,
  Optimizer,
  type OptimizerOptions,
} from './optimizer.js'

/** Options of {@link SGD}. */
export interface SGDOptions extends OptimizerOptions {
  /** Weight of the earlier gradients. Default 0. */
  momentum?: number
  /** What the new gradient is reduced by beside momentum. Default 0. */
  dampening?: number
  /** Whether to look ahead by the momentum, which then has to be above 0 and dampening 0. Default false. */
  nesterov?: boolean
}

const SIGNATURE: Signature<SGDOptions> = {
  leading: ['parameters'],
  options: { ...OPTIMIZER_OPTIONS, momentum: notNegative, dampening: finiteNumber, nesterov: boolean },
  positional: ['lr', 'momentum', 'dampening', 'weightDecay', 'nesterov'],
}

/** Stochastic gradient descent as `torch.optim.SGD`; `lr` is 1e-3 unless given. */
export class SGD extends Optimizer {
  /** Weight of the earlier gradients. */
  readonly momentum: number
  /** What the new gradient is reduced by beside momentum. */
  readonly dampening: number
  /** Weight decay, an L2 penalty. */
  readonly weightDecay: number
  /** Whether it looks ahead by the momentum. */
  readonly nesterov: boolean

  /** Throws `ERR_ARGUMENT` where PyTorch's raises `ValueError`. */
  constructor(parameters: Iterable<Parameter>, options?: SGDOptions) {
    const checked = readOptions(new.target.name, options, arguments, SIGNATURE)
    super(parameters, checked.lr ?? 1e-3)
    this.momentum = checked.momentum ?? 0
    this.dampening = checked.dampening ?? 0
    this.weightDecay = checked.weightDecay ?? 0
    this.nesterov = checked.nesterov ?? false
    try {
      native.checkSgd(this.#config())
    } catch (thrown) {
      throw thrown instanceof SpikenormError ? thrown.within(new.target.name) : thrown
    }
  }

  #config() {
    const { lr, momentum, dampening, weightDecay, nesterov } = this
    return { lr, momentum, dampening, weightDecay, nesterov }
  }

  /** @internal */
  protected override get buffers(): readonly BufferSpec[] {
    return this.momentum > 0 ? [{ name: 'momentum_buffer' }] : []
  }

  /** @internal */
  protected override move(moved: readonly Moved[]): void {
    native.sgdStep(
      this.#config(),
      handles(moved, ({ parameter }) => parameter),
      handles(moved, ({ grad }) => grad),
      handles(moved, ({ buffers }) => buffers[0]),
      // A new buffer holds zeros, so that without dampening the first step is like any other, also in a graph that
      // is captured in the first step and replayed.
      moved.map(({ isFirst }) => isFirst && this.dampening !== 0),
    )
  }
}
