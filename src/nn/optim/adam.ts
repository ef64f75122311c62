import { argumentError, type Check, notNegative, readOptions, type Signature } from '../../arguments.js'
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

/** Options of {@link Adam} and {@link AdamW}. */
export interface AdamOptions extends OptimizerOptions {
  /** Decay of the two moments. Default `[0.9, 0.999]`. */
  betas?: readonly [number, number]
  /** Added to the denominator. Default 1e-8. */
  eps?: number
}

const betas: Check<readonly [number, number]> = (where, name, value) => {
  if (!Array.isArray(value) || value.length !== 2) {
    throw argumentError(where, name, 'two numbers in an array, such as [0.9, 0.999]', value)
  }
  return [notNegative(where, name, value[0]), notNegative(where, name, value[1])]
}

const SIGNATURE: Signature<AdamOptions> = {
  leading: ['parameters'],
  options: { ...OPTIMIZER_OPTIONS, betas, eps: notNegative },
  positional: ['lr', 'betas', 'eps', 'weightDecay'],
}

/** Adam as `torch.optim.Adam`; `lr` is 1e-3 and `weightDecay` 0 unless given. */
export class Adam extends Optimizer {
  /** Decay of the first and the second moment. */
  readonly betas: readonly [number, number]
  /** Added to the denominator. */
  readonly eps: number
  /** Weight decay. */
  readonly weightDecay: number

  /** Throws `ERR_ARGUMENT` where PyTorch's raises `ValueError`, such as for betas outside [0, 1). */
  constructor(parameters: Iterable<Parameter>, options?: AdamOptions) {
    const checked = readOptions(new.target.name, options, arguments, SIGNATURE)
    super(parameters, checked.lr ?? 1e-3)
    this.betas = checked.betas ?? [0.9, 0.999]
    this.eps = checked.eps ?? 1e-8
    this.weightDecay = checked.weightDecay ?? this.defaultWeightDecay
    native.checkAdam(this.#config())
  }

  /** @internal Whether weight decay acts on the parameter and not on the gradient. */
  protected get isDecoupled(): boolean {
    return false
  }

  /** @internal */
  protected get defaultWeightDecay(): number {
    return 0
  }

  #config() {
    const { lr, betas, eps, weightDecay } = this
    return { lr, beta1: betas[0], beta2: betas[1], eps, weightDecay, decoupled: this.isDecoupled }
  }

  /** @internal */
  protected override get buffers(): readonly BufferSpec[] {
    return [{ name: 'step', isCount: true }, { name: 'exp_avg' }, { name: 'exp_avg_sq' }]
  }

  /** @internal */
  protected override move(moved: readonly Moved[]): void {
    native.adamStep(
      this.#config(),
      handles(moved, ({ parameter }) => parameter),
      handles(moved, ({ grad }) => grad),
      handles(moved, ({ buffers }) => buffers[1]),
      handles(moved, ({ buffers }) => buffers[2]),
      handles(moved, ({ buffers }) => buffers[0]),
    )
  }
}

/** Adam with decoupled weight decay as `torch.optim.AdamW`; `lr` is 1e-3 and `weightDecay` 0.01 unless given. */
export class AdamW extends Adam {
  /** @internal */
  protected override get isDecoupled(): boolean {
    return true
  }

  /** @internal */
  protected override get defaultWeightDecay(): number {
    return 0.01
  }
}
