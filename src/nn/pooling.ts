import { readOptions, type Signature, stepMode } from '../arguments.js'
import { Handle } from '../handle.js'
import { Module, type StepMode } from '../module.js'
import { madeAt, native } from '../native.js'
import { Tape, type TapeEntry } from '../tape.js'
import { Tensor } from '../tensor.js'
import { type Pair, pair } from './window.js'

/** Options of {@link AvgPool2d} and {@link MaxPool2d}. */
export interface PoolOptions {
  /** Default: the kernel's size. */
  stride?: Pair
  /** At most half the kernel's size. Default 0. */
  padding?: Pair
  /** Default `'s'`. */
  stepMode?: StepMode
}

const SIGNATURE: Signature<PoolOptions> = {
  leading: ['kernelSize'],
  options: {
    stride: (where, name, value) => pair(where, name, value, 1),
    padding: (where, name, value) => pair(where, name, value, 0),
    stepMode,
  },
  positional: ['stride', 'padding'],
}

/** What {@link AvgPool2d} and {@link MaxPool2d} share: pooling of `[N, C, H, W]`; in step mode `'m'` of `[T, N, C, H, W]`. */
export abstract class Pool2d extends Module {
  /** Height and width of the window. */
  readonly kernelSize: readonly [number, number]
  /** Steps of the window, down and across. */
  readonly stride: readonly [number, number]
  /** Padding on both sides, above and below, left and right. */
  readonly padding: readonly [number, number]
  /** @internal */
  protected readonly spec: Handle
  readonly #tape = new Tape<TapeEntry & { saved: Handle }>()

  /** Throws `ERR_ARGUMENT` for a padding of more than half the window. */
  constructor(kernelSize: Pair, options?: PoolOptions) {
    super()
    const name = new.target.name
    const checked = readOptions(name, options, arguments, SIGNATURE)
    const window = {
      kernelSize: pair(name, 'kernelSize', kernelSize, 1),
      stride: pair(name, 'stride', checked.stride ?? kernelSize, 1),
      padding: pair(name, 'padding', checked.padding ?? 0, 0),
    }
    this.stepMode = checked.stepMode ?? 's'
    this.spec = new Handle(this.naming(() => native.pool2DSpec(window)))
    this.kernelSize = window.kernelSize
    this.stride = window.stride
    this.padding = window.padding
  }

  /** @internal Native forward; makes y and saved. */
  protected abstract run(x: Tensor, record: boolean): number

  /** @internal Native backward: dx. */
  protected abstract runBackward(saved: number, dy: number): number

  /** @internal */
  protected override get tape() {
    return this.#tape
  }

  /** @internal */
  protected override get isBackwardAtomic(): boolean {
    return true
  }

  protected override computeForward(x: Tensor, record: boolean): Tensor {
    const made = this.run(x, record)
    const saved = madeAt(made, 1)
    if (saved !== 0) this.#tape.push({ saved: new Handle(saved), isGone: false })
    return new Tensor(madeAt(made, 0))
  }

  protected override computeBackward(dy: Tensor): Tensor {
    const dx = this.runBackward(this.#tape.latest().saved.id, dy.id)
    this.#tape.pop()
    return new Tensor(dx)
  }

  /** Pending forwards are dropped. */
  override reset(): void {
    this.#tape.clear()
  }

  override dispose(): void {
    super.dispose()
    this.spec.dispose()
  }
}

/** Mean of each window, padding (zeros) included, as `torch.nn.AvgPool2d`. */
export class AvgPool2d extends Pool2d {
  /** @internal */
  protected override run(x: Tensor, record: boolean): number {
    return native.avgPool2DForward(this.spec.id, x.id, this.stepMode === 'm', record)
  }

  /** @internal */
  protected override runBackward(saved: number, dy: number): number {
    return native.avgPool2DBackward(saved, dy)
  }
}

/**
 * Largest value of each window, padding left out, as `torch.nn.MaxPool2d`. The gradient goes to the first of equal values;
 * a NaN wins.
 */
export class MaxPool2d extends Pool2d {
  /** @internal */
  protected override run(x: Tensor, record: boolean): number {
    return native.maxPool2DForward(this.spec.id, x.id, this.stepMode === 'm', record)
  }

  /** @internal */
  protected override runBackward(saved: number, dy: number): number {
    return native.maxPool2DBackward(saved, dy)
  }
}
