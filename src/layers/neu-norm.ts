/**
 * NeuNorm (Wu et al. 2019, "Direct Training for Spiking Neural Networks: Faster, Larger, Better"): an auxiliary state
 * sums the spikes of all channels over time and is subtracted with a learned weight,
 * `s_t = k·s_{t−1} + (1 − k)/C² · Σ_c x_t`, `y_t = x_t − w·s_t`. The same in training and evaluation.
 */

import {
  boolean,
  device,
  finiteNumber,
  floatDType,
  placeOfParameters,
  readOptions,
  type Signature,
  stepMode,
  wholeNumber,
} from '../arguments.js'
import { CarriedState, type StatefulEntry } from '../carried-state.js'
import type { Conversions } from '../conversion.js'
import type { Device } from '../device.js'
import type { DType } from '../dtype.js'
import { become, Handle, PENDING, Saved } from '../handle.js'
import { drawUniform, isInitialising } from '../initialisation.js'
import { Module, type StepMode } from '../module.js'
import { madeAt, native } from '../native.js'
import { newParameter, type Parameter } from '../parameter.js'
import { isAtomic } from '../rollback.js'
import { Tape } from '../tape.js'
import { Tensor } from '../tensor.js'

/** Options of {@link NeuNorm}. */
export interface NeuNormOptions {
  /** Decay of the state. Default 0.9. */
  k?: number
  /** One weight for all channels. Default false. */
  sharedAcrossChannels?: boolean
  /** Whether the channels are the last axis of the input, `[N, H, W, C]`, as in TensorFlow. Default false. */
  channelsLast?: boolean
  /** Default `'s'`. */
  stepMode?: StepMode
  /** Dtype of the inputs. The weight is float32 beside half types. Default `'float32'`. */
  dtype?: DType
  /** Where the weight is. Default `'cpu'`. */
  device?: Device
}

const SIGNATURE: Signature<NeuNormOptions> = {
  leading: ['inChannels', 'height', 'width'],
  options: {
    k: finiteNumber,
    sharedAcrossChannels: boolean,
    channelsLast: boolean,
    stepMode,
    dtype: floatDType,
    device,
  },
  positional: ['k', 'sharedAcrossChannels', 'stepMode'],
}

interface Entry extends StatefulEntry<Entry> {
  readonly saved: Saved
}

/**
 * NeuNorm (Wu et al. 2019), SpikingJelly's `layer.NeuNorm`: a state sums the spikes of all channels over time and is
 * subtracted with a learned weight, `s_t = k·s_{t−1} + (1 − k)/C²·Σ_c x_t`, `y_t = x_t − w·s_t`, the same in training and
 * evaluation. For `[N, C, H, W]`, or `[N, H, W, C]` with `channelsLast`; with a leading T in step mode `'m'`. The weight `w` is
 * `[C, H, W]`, or `[1, H, W]` when shared, and
 * starts as U(±1/√(H·W)). The state `[N, 1, H, W]` is kept between calls until `reset()`; another batch size throws
 * `ERR_SHAPE`.
 */
export class NeuNorm extends Module {
  /** C, the number of channels. */
  readonly inChannels: number
  /** H, the height of the input. */
  readonly height: number
  /** W, the width of the input. */
  readonly width: number
  /** Decay of the state per time step. */
  readonly k: number
  /** Whether all channels have one weight. */
  readonly sharedAcrossChannels: boolean
  /** Whether the channels are the last axis of the input. */
  readonly channelsLast: boolean

  readonly #spec: Handle
  readonly #w: Parameter
  readonly #tape = new Tape<Entry>()
  readonly #state = new CarriedState<Entry>()

  /**
   * Throws `ERR_ARGUMENT` for what is out of its range.
   * @param inChannels C, the number of channels
   * @param height H of the inputs
   * @param width W of the inputs
   * @param options decay, sharing and place
   */
  constructor(inChannels: number, height: number, width: number, options?: NeuNormOptions) {
    super()
    const name = new.target.name
    const checked = readOptions(name, options, arguments, SIGNATURE)
    this.inChannels = wholeNumber(name, 'inChannels', inChannels)
    this.height = wholeNumber(name, 'height', height)
    this.width = wholeNumber(name, 'width', width)
    this.k = checked.k ?? 0.9
    this.sharedAcrossChannels = checked.sharedAcrossChannels ?? false
    this.channelsLast = checked.channelsLast ?? false
    this.stepMode = checked.stepMode ?? 's'
    const place = placeOfParameters(checked)
    this.#spec = new Handle(
      native.neuNormSpec(inChannels, height, width, this.channelsLast, this.k, this.sharedAcrossChannels),
    )
    const rows = this.sharedAcrossChannels ? 1 : inChannels
    this.#w = this.registerParameter('w', newParameter([rows, height, width], 0, place))
    if (isInitialising()) this.resetParameters()
  }

  /** @internal */
  protected override get tape() {
    return this.#tape
  }

  /** @internal */
  protected override get isBackwardAtomic(): boolean {
    return true
  }

  protected override computeForward(x: Tensor, record: boolean): Tensor {
    const { value } = this.#state
    // The native call makes the state it is given the next one.
    const state = value && isAtomic() ? value.reshape(value.shape) : value
    const y = new Tensor(PENDING)
    const made = native.neuNormForward(
      y,
      this.#spec.id,
      x.id,
      this.stepMode === 'm',
      this.#w.id,
      state?.id ?? 0,
      record,
    )
    const saved = madeAt(made, 1)
    const entry =
      saved === 0 ? null : { saved: new Saved(saved), previous: this.#state.source, isGone: false }
    if (entry) this.#tape.push(entry)
    this.#state.advance(state ?? new Tensor(madeAt(made, 2)), entry)
    return become(y, madeAt(made, 0))
  }

  protected override computeBackward(dy: Tensor): Tensor {
    const entry = this.#tape.latest()
    const carried = this.#carriedTo(entry)
    const dx = new Tensor(PENDING)
    const made = native.neuNormBackward(
      dx,
      entry.saved.id,
      dy.id,
      carried?.id ?? 0,
      this.#w.gradId,
      isAtomic(),
    )
    if (!isAtomic()) entry.saved.forget()
    this.#state.handBack(entry, carried ?? new Tensor(madeAt(made, 2)), this.#tape)
    const w = madeAt(made, 1)
    if (w !== 0) this.#w.accumulate(w)
    return become(dx, madeAt(made, 0))
  }

  /** The gradient that later calls have handed to `entry`, which the native call may overwrite. */
  #carriedTo(entry: Entry): Tensor | null {
    const carried = this.#state.gradientOf(entry)
    return carried && isAtomic() ? carried.reshape(carried.shape) : carried
  }

  /** State to 0; pending forwards are dropped. */
  override reset(): void {
    this.#state.reset()
    this.#tape.clear()
  }

  override detach(): void {
    this.#state.detach()
  }

  /** Draws the weight anew from U(±1/√(H·W)). */
  resetParameters(): void {
    const bound = 1 / Math.sqrt(this.height * this.width)
    drawUniform([this.#w], bound)
  }

  /** @internal */
  protected override convert(conversions: Conversions): void {
    super.convert(conversions)
    if (this.#state.value) conversions.add(this.#state.value)
  }

  override dispose(): void {
    this.#state.reset()
    super.dispose()
    this.#spec.dispose()
  }
}
