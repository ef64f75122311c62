/**
 * The twelve batch norms as one class: a specification, the small tensors `[rows, C]` beside it, a step index and a
 * tape. The classes of the public API are presets of it (see the files beside this one).
 */

import {
  argumentError,
  boolean,
  type Check,
  device,
  finiteNumber,
  floatDType,
  nullable,
  type OptionChecks,
  placeOfParameters,
  readOptions,
  stepMode,
  wholeNumber,
} from '../arguments.js'
import type { Conversions } from '../conversion.js'
import type { Device } from '../device.js'
import type { DType } from '../dtype.js'
import { SpikenormError } from '../errors.js'
import { become, Handle, PENDING, Saved } from '../handle.js'
import { fill } from '../initialisation.js'
import { Module, type StepMode } from '../module.js'
import { madeAt, native } from '../native.js'
import { newParameter, Parameter } from '../parameter.js'
import { changed, isAtomic, keepValues } from '../rollback.js'
import { Tape, type TapeEntry } from '../tape.js'
import { full, Tensor, type TensorOptions } from '../tensor.js'

/** How many rows a small tensor has: none, one shared over time, or one per time step. */
export type Rows = 'absent' | 'shared' | 'perStep'

/** What tells one family of norms from another: its row of the table in the README. */
export interface NormPreset {
  statistics: Rows
  weight: Rows
  bias: Rows
  timeScale: boolean
  stepModes: readonly StepMode[]
}

/** Options of the twelve batch norms, PyTorch's in camelCase. */
export interface NormOptions {
  /** Added to the variance; above 0, in evaluation too (PyTorch refuses 0 in training alone). Default 1e-5. */
  eps?: number
  /** Weight of the new value in the running statistics; `null` for a cumulative average. Default 0.1. */
  momentum?: number | null
  /** Whether the layer has learnable parameters. Default true. */
  affine?: boolean
  /** Whether running statistics are kept; without them eval mode uses the batch's. Default true. */
  trackRunningStats?: boolean
  /** Whether the channels are the last axis of the input, `[N, H, W, C]`, as in TensorFlow. Default false. */
  channelsLast?: boolean
  /** `'s'` (default where the class has both) or `'m'`; `ERR_STEP_MODE` for what the class cannot be in. */
  stepMode?: StepMode
  /** Dtype of the inputs. Parameters are float32 beside half types. Default `'float32'`. */
  dtype?: DType
  /** Where parameters and statistics are. Default `'cpu'`. */
  device?: Device
}

/** Smallest normal number of float32: 1/√eps is finite, so that a constant channel gives no NaN. */
const LEAST_EPS = 2 ** -126

const eps: Check<number> = (where, name, value) => {
  const isUsable = value === 0 || (Number.isFinite(value) && (value as number) >= LEAST_EPS)
  if (!isUsable) throw argumentError(where, name, '0 or a finite number >= 2^-126', value)
  return value as number
}

const NORM_OPTIONS: OptionChecks<NormOptions> = {
  eps,
  momentum: nullable(finiteNumber),
  affine: boolean,
  trackRunningStats: boolean,
  channelsLast: boolean,
  stepMode,
  dtype: floatDType,
  device,
}

/** The options of a batch norm, checked; `given` are the `arguments` of its constructor. */
export function readNormOptions(
  name: string,
  options: unknown,
  given: ArrayLike<unknown>,
  leading: readonly string[],
): NormOptions {
  const positional = ['eps', 'momentum', 'affine', 'trackRunningStats', 'stepMode'] as const
  return readOptions(name, options, given, { leading, options: NORM_OPTIONS, positional })
}

/** What a class adds to its preset. */
export interface NormConfig {
  /** Axes after the channel. */
  spatial: 1 | 2 | 3
  numFeatures: number
  /** Number of time steps, for classes made for a fixed one. */
  T?: number
  initialWeight?: number
}

interface Entry extends TapeEntry {
  readonly saved: Saved
  /** Step index of the forward's first step. */
  firstStep: number
  /** How many there were, where that matters: for layers with rows per step. */
  steps: number
}

/** A tensor `[rows, C]` and the tensors of the state dict that are its rows. */
interface Stack<T extends Tensor> {
  base: Tensor
  rows: T[]
}

/**
 * What the twelve batch norms share. Parameters are `weight` and `bias` `[C]` and, by class, `scale` `[T]` or one weight per
 * time step; buffers are `running_mean`, `running_var` `[C]` and `num_batches_tracked`. In training the batch's statistics
 * normalise and move the running ones (which take the unbiased variance), in evaluation the running ones normalise, or the
 * batch's where none are kept.
 */
export abstract class NormLayer extends Module {
  /** C, the number of channels. */
  readonly numFeatures: number
  /** Added to the variance. */
  readonly eps: number
  /** Whether the layer has a weight, and a bias where its class has one. */
  readonly affine: boolean
  /** Whether the channels are the last axis of the input. */
  readonly channelsLast: boolean
  /** Whether training moves the running statistics; may be toggled. */
  trackRunningStats: boolean

  readonly #preset: NormPreset
  readonly #initialWeight: number
  readonly #native: Handle
  readonly #T: number
  readonly #tape = new Tape<Entry>()
  readonly #weight: Stack<Parameter> | undefined
  readonly #bias: Stack<Parameter> | undefined
  readonly #scale: Parameter | undefined
  readonly #runningMean: Stack<Tensor> | undefined
  readonly #runningVar: Stack<Tensor> | undefined
  readonly #counters: Stack<Tensor> | undefined
  #momentum: number | null = 0.1
  #step = 0

  /** @internal */
  protected constructor(preset: NormPreset, config: NormConfig, options: NormOptions) {
    super()
    const name = new.target.name
    if (!preset || !config) {
      throw new SpikenormError(
        'ERR_ARGUMENT',
        `${name}: write one of the twelve classes, such as BatchNorm2d`,
      )
    }
    this.#preset = preset
    this.numFeatures = wholeNumber(name, 'numFeatures', config.numFeatures)
    this.#T = config.T === undefined ? 0 : wholeNumber(name, 'T', config.T)
    this.eps = options.eps ?? 1e-5
    this.momentum = options.momentum === undefined ? 0.1 : options.momentum
    this.affine = options.affine ?? true
    this.channelsLast = options.channelsLast ?? false
    this.trackRunningStats = options.trackRunningStats ?? true
    this.#initialWeight = finiteNumber(name, 'alpha * vTh', config.initialWeight ?? 1)
    this.stepMode = options.stepMode ?? preset.stepModes[0] ?? 's'
    const place = placeOfParameters(options)

    const rows = {
      weight: this.affine ? preset.weight : 'absent',
      bias: this.affine ? preset.bias : 'absent',
    } as const
    const C = this.numFeatures
    if (preset.timeScale) {
      this.#scale = this.registerParameter('scale', newParameter([this.#T], 1, place))
    }
    this.#weight = this.#stack(rows.weight, 'weight', [C], this.#initialWeight, place, Parameter)
    this.#bias = this.#stack(rows.bias, 'bias', [C], 0, place, Parameter)
    if (this.trackRunningStats) {
      this.#runningMean = this.#stack(preset.statistics, 'running_mean', [C], 0, place, Tensor)
      this.#runningVar = this.#stack(preset.statistics, 'running_var', [C], 1, place, Tensor)
      this.#counters = this.#stack(
        preset.statistics,
        'num_batches_tracked',
        [],
        0,
        { ...place, dtype: 'int64' },
        Tensor,
      )
    }
    const own = {
      weight: this.#weight?.base.id ?? 0,
      bias: this.#bias?.base.id ?? 0,
      runningMean: this.#runningMean?.base.id ?? 0,
      runningVar: this.#runningVar?.base.id ?? 0,
      counters: this.#counters?.base.id ?? 0,
    }
    const spec = {
      spatial: config.spatial,
      channels: this.numFeatures,
      channelsLast: this.channelsLast,
      steps: this.#T,
      statistics: preset.statistics,
      weight: rows.weight,
      bias: rows.bias,
      timeScale: preset.timeScale,
      eps: this.eps,
    }
    this.#native = new Handle(native.normLayer(spec, own))
  }

  /** Makes a stack and registers its rows by PyTorch's names: `weight`, or `bn_list.{t}.weight` per step. */
  #stack<T extends Tensor>(
    rows: Rows,
    name: string,
    shape: number[],
    value: number,
    place: TensorOptions,
    Row: new (id: number) => T,
  ): Stack<T> | undefined {
    if (rows === 'absent') return undefined
    const count = rows === 'perStep' ? this.#T : 1
    const base = full([count, ...shape], value, place)
    const views = Array.from({ length: count }, (_, t) => {
      const view = new Row(native.tensorRow(base.id, t))
      const key = rows === 'perStep' ? `bn_list.${t}.${name}` : name
      if (view instanceof Parameter) this.registerParameter(key, view)
      else this.registerBuffer(key, view)
      return view
    })
    return { base, rows: views }
  }

  /**
   * Weight of the new value in the running statistics (`running = (1 − momentum)·running + momentum·batch`); `null` for a
   * cumulative average.
   */
  get momentum(): number | null {
    return this.#momentum
  }

  set momentum(momentum: number | null) {
    const before = this.#momentum
    this.#momentum = momentum === null ? null : finiteNumber(this.constructor.name, 'momentum', momentum)
    changed({
      undo: () => {
        this.#momentum = before
      },
    })
  }

  protected override get stepModes(): readonly StepMode[] {
    return this.#preset?.stepModes ?? super.stepModes
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
    const isMulti = this.stepMode === 'm'
    const firstStep = this.#step
    const isPerStep = this.#preset.statistics === 'perStep'
    const steps = isPerStep && isMulti ? (x.shape[0] as number) : 1
    if (this.training && this.trackRunningStats && isAtomic()) {
      for (const stack of [this.#runningMean, this.#runningVar, this.#counters]) {
        if (stack) keepValues(stack.base)
      }
    }
    const y = new Tensor(PENDING)
    const made = native.normForward(
      y,
      this.#native.id,
      x.id,
      this.#scale?.id ?? 0,
      isMulti,
      firstStep,
      this.training,
      this.trackRunningStats,
      this.#momentum,
      record,
    )
    if (isPerStep) this.#moveTo(firstStep + steps)
    const saved = madeAt(made, 1)
    if (saved !== 0) this.#tape.push({ saved: new Saved(saved), firstStep, steps, isGone: false })
    return become(y, madeAt(made, 0))
  }

  protected override computeBackward(dy: Tensor): Tensor {
    const entry = this.#tape.latest()
    const dx = new Tensor(PENDING)
    const { saved } = entry
    const weight = onlyRow(this.#weight, entry)
    const bias = onlyRow(this.#bias, entry)
    // The native call does not add the gradients of several steps, which come as one tensor: that may throw after it.
    const keepsSaved = isAtomic() || entry.steps > 1
    const made = native.normBackward(
      dx,
      saved.id,
      dy.id,
      weight?.gradId ?? 0,
      bias?.gradId ?? 0,
      this.#scale?.gradId ?? 0,
      keepsSaved,
    )
    become(dx, madeAt(made, 0))
    if (!keepsSaved) saved.forget()
    try {
      // What has been added to a gradient is not returned.
      takeGradient(this.#weight, weight, madeAt(made, 1), entry)
      takeGradient(this.#bias, bias, madeAt(made, 2), entry)
      const scale = madeAt(made, 3)
      if (scale !== 0) this.#scale?.accumulate(scale)
    } catch (thrown) {
      dx.dispose()
      throw thrown
    }
    this.#tape.pop()
    return dx
  }

  /** Step index to 0; pending forwards are dropped. Statistics and parameters stay. */
  override reset(): void {
    this.#moveTo(0)
    this.#tape.clear()
  }

  #moveTo(step: number): void {
    const before = this.#step
    if (step === before) return
    this.#step = step
    if (!isAtomic()) return
    changed({
      undo: () => {
        this.#step = before
      },
    })
  }

  /** Running statistics to mean 0 and variance 1, counters to 0. */
  resetRunningStats(): void {
    fill(this.#initialStatistics)
  }

  get #initialStatistics(): [Tensor | undefined, number][] {
    return [
      [this.#runningMean?.base, 0],
      [this.#runningVar?.base, 1],
      [this.#counters?.base, 0],
    ]
  }

  /** Parameters to their initial values (tdBN: the weight to alpha · vTh), running statistics likewise. */
  resetParameters(): void {
    fill([
      ...this.#initialStatistics,
      [this.#weight?.base, this.#initialWeight],
      [this.#bias?.base, 0],
      [this.#scale, 1],
    ])
  }

  /** @internal */
  protected override convert(conversions: Conversions): void {
    // Rows are views of the stack: they become views of the converted one.
    for (const stack of [this.#weight, this.#bias, this.#runningMean, this.#runningVar, this.#counters]) {
      if (stack) conversions.addWithRows(stack.base, stack.rows)
    }
    super.convert(conversions)
  }

  override dispose(): void {
    super.dispose()
    for (const stack of [this.#weight, this.#bias, this.#runningMean, this.#runningVar, this.#counters]) {
      stack?.base.dispose()
    }
    this.#native.dispose()
  }
}

/** The parameter that a forward's gradient belongs to, where it is one. */
function onlyRow(stack: Stack<Parameter> | undefined, { firstStep, steps }: Entry): Parameter | undefined {
  if (!stack) return undefined
  if (stack.rows.length === 1) return stack.rows[0]
  return steps === 1 ? stack.rows[firstStep] : undefined
}

/** Takes over a native gradient: that of `only`, or `[steps, C]` for the parameters of the forward's steps. */
function takeGradient(
  stack: Stack<Parameter> | undefined,
  only: Parameter | undefined,
  gradient: number,
  { firstStep, steps }: Entry,
): void {
  if (!stack || gradient === 0) return
  if (only) {
    only.accumulate(gradient)
    return
  }
  const rows = stack.rows.slice(firstStep, firstStep + steps)
  const gradients: number[] = []
  try {
    for (const row of rows.keys()) gradients.push(native.tensorRow(gradient, row))
  } catch (thrown) {
    for (const made of gradients) native.free(made)
    throw thrown
  } finally {
    native.free(gradient)
  }
  Parameter.accumulateAll(rows, gradients)
}
