/**
 * Integrate-and-fire neurons with SpikingJelly's semantics: charge to h, spike where h ≥ vThreshold, then reset, hard to
 * vReset or softly by −vThreshold. Backward replaces the step's derivative by a surrogate.
 */
import { CarriedState, type StatefulEntry } from '../carried-state.js'
import { type Checkpoint, combined } from '../checkpoint.js'
import { SpikenormError } from '../errors.js'
import { Handle } from '../handle.js'
import { finiteNumber } from '../layers/arguments.js'
import { type Conversion, conversionOf, Module, type StepMode } from '../module.js'
import { native } from '../native.js'
import { Tape } from '../tape.js'
import { Tensor } from '../tensor.js'

/** SpikingJelly's `surrogate.ATan` (alpha 2) and `surrogate.Sigmoid` (alpha 4). */
export type Surrogate = 'atan' | 'sigmoid'

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

export interface LIFNodeOptions extends IFNodeOptions {
  /** Membrane time constant, above 1. Default 2. */
  tau?: number
  /** Whether the input is divided by tau too. Default true. */
  decayInput?: boolean
}

interface Entry extends StatefulEntry<Entry> {
  readonly saved: Handle
}

/** `[N, ...]` in step mode `'s'`, `[T, N, ...]` in `'m'`; spikes are 0 and 1 in the input's dtype. */
abstract class Neuron extends Module {
  readonly vThreshold: number
  readonly vReset: number | null
  readonly surrogate: Surrogate
  readonly detachReset: boolean
  readonly #spec: Handle
  readonly #tape = new Tape<Entry>()
  readonly #state = new CarriedState<Entry>()

  protected constructor(options: IFNodeOptions, leak: { tau?: number; decayInput: boolean }) {
    super()
    const name = this.constructor.name
    this.vThreshold = finiteNumber(name, 'vThreshold', options.vThreshold ?? 1)
    const vReset = options.vReset === undefined ? 0 : options.vReset
    this.vReset = vReset === null ? null : finiteNumber(name, 'vReset', vReset)
    this.surrogate = options.surrogate ?? 'sigmoid'
    this.detachReset = options.detachReset ?? false
    this.stepMode = options.stepMode ?? 's'
    if (typeof this.surrogate !== 'string') {
      throw new SpikenormError('ERR_ARGUMENT', `${name}: surrogate: expected 'atan' or 'sigmoid'`)
    }
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

  protected override get tape() {
    return this.#tape
  }

  protected override computeForward(x: Tensor, record: boolean): Tensor {
    const [y, next, saved] = native.neuronForward(
      this.#spec.id,
      x.id,
      this.stepMode === 'm',
      this.#state.value?.id ?? 0,
      record,
    ) as [number, number, number]
    const entry = saved === 0 ? null : { saved: new Handle(saved), previous: this.#state.source }
    if (entry) this.#tape.push(entry)
    this.#state.advance(new Tensor(next), entry)
    return new Tensor(y)
  }

  protected override computeBackward(dy: Tensor): Tensor {
    const entry = this.#tape.latest()
    const carry = this.#state.gradientOf(entry)?.id ?? 0
    const [dx, state] = native.neuronBackward(entry.saved.id, dy.id, carry) as [number, number]
    this.#state.handBack(entry, new Tensor(state), this.#tape)
    return new Tensor(dx)
  }

  /** Voltage to its initial value; pending forwards are dropped. */
  override reset(): void {
    this.#state.reset()
    this.#tape.clear()
  }

  override detach(): void {
    this.#state.detach()
  }

  override checkpoint(): Checkpoint {
    return combined(super.checkpoint(), this.#state.checkpoint(), this.#tape.checkpoint())
  }

  protected override convert(target: Conversion): () => void {
    const own = super.convert(target)
    const state = conversionOf(this.#state.value ? [this.#state.value] : [], target)
    return () => {
      own()
      state()
    }
  }

  override dispose(): void {
    super.dispose()
    this.#spec.dispose()
  }
}

/** Neurons without leak: h = v + x. */
export class IFNode extends Neuron {
  constructor(options: IFNodeOptions = {}) {
    super(options, { decayInput: true })
  }
}

/**
 * Leaky neurons: h = v + (x − (v − vReset))/tau, or h = v − (v − vReset)/tau + x without `decayInput` (vReset counts
 * as 0 under a soft reset).
 */
export class LIFNode extends Neuron {
  readonly tau: number
  readonly decayInput: boolean

  constructor(options: LIFNodeOptions = {}) {
    const tau = finiteNumber(new.target.name, 'tau', options.tau ?? 2)
    const decayInput = options.decayInput ?? true
    super(options, { tau, decayInput })
    this.tau = tau
    this.decayInput = decayInput
  }
}
