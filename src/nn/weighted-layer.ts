/** What convolution and the fully connected layer share: weight, bias, initialisation and the tape. */

import { boolean, device, floatDType, type OptionChecks, placeOfParameters, stepMode } from '../arguments.js'
import type { Device } from '../device.js'
import type { DType } from '../dtype.js'
import { Handle } from '../handle.js'
import { drawUniform, isInitialising } from '../initialisation.js'
import { Module, type StepMode } from '../module.js'
import { madeAt } from '../native.js'
import { newParameter, Parameter } from '../parameter.js'
import { Tape, type TapeEntry } from '../tape.js'
import { Tensor } from '../tensor.js'

/** Options that {@link Linear} and {@link Conv2d} share. */
export interface WeightedLayerOptions {
  /** Whether the layer adds a learned bias. Default true. */
  bias?: boolean
  /** Default `'s'`. */
  stepMode?: StepMode
  /** Dtype of the inputs. Parameters are float32 beside half types. Default `'float32'`. */
  dtype?: DType
  /** Where the parameters are. Default `'cpu'`. */
  device?: Device
}

/** @internal Checks of the options that Linear and Conv2d share. */
export const WEIGHTED_LAYER_OPTIONS: OptionChecks<WeightedLayerOptions> = {
  bias: boolean,
  stepMode,
  dtype: floatDType,
  device,
}

/**
 * What {@link Linear} and {@link Conv2d} share. A recorded forward keeps its input (shared) and a copy of the weight, so backward is right even where the weight
 * has been changed in between.
 */
export abstract class WeightedLayer extends Module {
  // Not fields: an assigned one would be computed with, but neither trained nor saved.
  readonly #weight: Parameter
  readonly #bias: Parameter | null
  /** @internal */
  protected readonly spec: Handle
  readonly #fanIn: number
  readonly #tape = new Tape<TapeEntry & { saved: Handle }>()

  /** @internal Takes over the handle of a specification; `shape` is the weight's, outputs first; options are checked. */
  protected constructor(spec: () => number, shape: readonly number[], options: WeightedLayerOptions) {
    super()
    this.stepMode = options.stepMode ?? 's'
    const place = placeOfParameters(options)
    this.spec = new Handle(this.naming(spec))
    this.#fanIn = shape.slice(1).reduce((product, extent) => product * extent, 1)
    this.#weight = this.registerParameter('weight', newParameter(shape, 0, place))
    this.#bias =
      (options.bias ?? true)
        ? this.registerParameter('bias', newParameter(shape.slice(0, 1), 0, place))
        : null
    if (isInitialising()) this.resetParameters()
  }

  /** The weight, outputs first. */
  get weight(): Parameter {
    return this.#weight
  }

  /** The bias, one per output, or `null`. */
  get bias(): Parameter | null {
    return this.#bias
  }

  /** @internal Native forward; makes y and saved. */
  protected abstract run(x: Tensor, bias: number, record: boolean): number

  /** @internal Native backward; makes dx, dweight and dbias. */
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
    const made = this.run(x, this.bias?.id ?? 0, record)
    const saved = madeAt(made, 1)
    if (saved !== 0) this.#tape.push({ saved: new Handle(saved), isGone: false })
    return new Tensor(madeAt(made, 0))
  }

  protected override computeBackward(dy: Tensor): Tensor {
    const { saved } = this.#tape.latest()
    const made = this.runBackward(saved.id, dy.id)
    const dx = new Tensor(madeAt(made, 0))
    const [weight, bias] = [madeAt(made, 1), madeAt(made, 2)]
    try {
      if (this.bias) Parameter.accumulateAll([this.weight, this.bias], [weight, bias])
      else Parameter.accumulateAll([this.weight], [weight])
    } catch (thrown) {
      dx.dispose()
      throw thrown
    }
    this.#tape.pop()
    return dx
  }

  /** Draws weight and bias anew as PyTorch does: both from U(±1/√fan_in). */
  resetParameters(): void {
    const bound = 1 / Math.sqrt(this.#fanIn)
    drawUniform(this.bias ? [this.weight, this.bias] : [this.weight], bound)
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
