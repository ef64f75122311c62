/**
 * Integrate-and-fire neurons with SpikingJelly's semantics: charge to h, spike where h ≥ vThreshold, then reset, hard to
 * vReset or softly by −vThreshold. Backward replaces the step's derivative by a surrogate.
 */

import {
  boolean,
  finiteNumber,
  nullable,
  type OptionChecks,
  oneOf,
  readOptions,
  type Signature,
  stepMode,
} from '../arguments.js'
import { CarriedState, type StatefulEntry } from '../carried-state.js'
import type { Conversions } from '../conversion.js'
import { Handle } from '../handle.js'
import { Module, type StepMode } from '../module.js'
import { madeAt, native } from '../native.js'
import { Tape } from '../tape.js'
import { Tensor } from '../tensor.js'

/** Derivative that stands in for the step's in backward: SpikingJelly's `surrogate.ATan` (alpha 2) or `surrogate.Sigmoid` (alpha 4). */
export type Surrogate = 'atan' | 'sigmoid'

/** Options of {@link IFNode}; voltages are in the units of the input. */
export interface IFNodeOptions {
  /** Voltage at which a neuron fires. Default 1. */
  vThreshold?: number
  /** Voltage after a spike and at the start; `null` for a soft reset, starting at 0. Default 0. */
  vReset?: number | null
  /** Default `'sigmoid'`, as in SpikingJelly. */
  surrogate?: Surrogate
  /** Whether no gradient goes through the reset. Default false. */
  detachReset?: boolean
  /** Default `'s'`. */
  stepMode?: StepMode
}

/** Options of {@link LIFNode}. */
export interface LIFNodeOptions extends IFNodeOptions {
  /** Membrane time constant in time steps, above 1. Default 2. */
  tau?: number
  /** Whether the input is divided by tau too. Default true. */
  decayInput?: boolean
}

const IF_OPTIONS: OptionChecks<IFNodeOptions> = {
  vThreshold: finiteNumber,
  vReset: nullable(finiteNumber),
  surrogate: oneOf(['atan', 'sigmoid']),
  detachReset: boolean,
  stepMode,
}

const IF_SIGNATURE: Signature<IFNodeOptions> = {
  leading: [],
  options: IF_OPTIONS,
  positional: ['vThreshold', 'vReset', 'surrogate', 'detachReset', 'stepMode'],
}

const LIF_SIGNATURE: Signature<LIFNodeOptions> = {
  leading: [],
  options: { ...IF_OPTIONS, tau: finiteNumber, decayInput: boolean },
  positional: ['tau', 'decayInput', 'vThreshold', 'vReset', 'surrogate', 'detachReset', 'stepMode'],
}

interface Entry extends StatefulEntry<Entry> {
  readonly saved: Handle
}

/**
 * What {@link IFNode} and {@link LIFNode} share: charge to h, spike where h ≥ vThreshold, then reset. Inputs are
 * `[N, ...]` in step mode `'s'` and `[T, N, ...]` in `'m'`; spikes are 0 and 1 in the input's dtype. The voltage is kept
 * between calls until `reset()`; another shape throws `ERR_SHAPE`.
 */
export abstract class Neuron extends Module {
  /** Voltage at which a neuron fires. */
  readonly vThreshold: number
  /** Voltage after a spike, or `null` for a soft reset by −vThreshold. */
  readonly vReset: number | null
  /** Derivative of the spike in backward. */
  readonly surrogate: Surrogate
  /** Whether no gradient goes through the reset. */
  readonly detachReset: boolean
  readonly #spec: Handle
  readonly #tape = new Tape<Entry>()
  readonly #state = new CarriedState<Entry>()

  /** @internal Takes options that have been checked. */
  protected constructor(options: IFNodeOptions, leak: { tau?: number; decayInput: boolean }) {
    super()
    this.vThreshold = options.vThreshold ?? 1
    this.vReset = options.vReset === undefined ? 0 : options.vReset
    this.surrogate = options.surrogate ?? 'sigmoid'
    this.detachReset = options.detachReset ?? false
    this.stepMode = options.stepMode ?? 's'
    const config = {
      ...leak,
      vThreshold: this.vThreshold,
      ...(this.vReset === null ? {} : { vReset: this.vReset }),
      surrogate: this.surrogate,
      detachReset: this.detachReset,
    }
    this.#spec = new Handle(this.naming(() => native.neuronSpec(config)))
  }

  /** A copy of the voltage after the last step, the input's shape without T; `null` before the first. */
  get v(): Tensor | null {
    return this.#state.value?.clone() ?? null
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
    const made = native.neuronForward(
      this.#spec.id,
      x.id,
      this.stepMode === 'm',
      this.#state.value?.id ?? 0,
      record,
    )
    const saved = madeAt(made, 2)
    const entry =
      saved === 0 ? null : { saved: new Handle(saved), previous: this.#state.source, isGone: false }
    if (entry) this.#tape.push(entry)
    this.#state.advance(new Tensor(madeAt(made, 1)), entry)
    return new Tensor(madeAt(made, 0))
  }

  protected override computeBackward(dy: Tensor): Tensor {
    const entry = this.#tape.latest()
    const carry = this.#state.gradientOf(entry)?.id ?? 0
    const made = native.neuronBackward(entry.saved.id, dy.id, carry)
    this.#state.handBack(entry, new Tensor(madeAt(made, 1)), this.#tape)
    return new Tensor(madeAt(made, 0))
  }

  /** Voltage to its initial value; pending forwards are dropped. */
  override reset(): void {
    this.#state.reset()
    this.#tape.clear()
  }

  override detach(): void {
    this.#state.detach()
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

/** Integrate-and-fire neurons without leak, SpikingJelly's `neuron.IFNode`: h = v + x. */
export class IFNode extends Neuron {
  /** Throws `ERR_ARGUMENT` for a voltage that is not finite or an unknown surrogate. */
  constructor(options?: IFNodeOptions) {
    super(readOptions(new.target.name, options, arguments, IF_SIGNATURE), { decayInput: true })
  }
}

/**
 * Leaky integrate-and-fire neurons, SpikingJelly's `neuron.LIFNode`: h = v + (x − (v − vReset))/tau, or h = v − (v − vReset)/tau + x without `decayInput` (vReset counts
 * as 0 under a soft reset).
 */
export class LIFNode extends Neuron {
  /** Membrane time constant, in time steps. */
  readonly tau: number
  /** Whether the input is divided by tau too. */
  readonly decayInput: boolean

  /** Throws `ERR_ARGUMENT` for a tau of 1 or less, a voltage that is not finite or an unknown surrogate. */
  constructor(options?: LIFNodeOptions) {
    const {
      tau = 2,
      decayInput = true,
      ...rest
    } = readOptions(new.target.name, options, arguments, LIF_SIGNATURE)
    super(rest, { tau, decayInput })
    this.tau = tau
    this.decayInput = decayInput
  }
}
