/** What the optimisers share: parameters, the learning rate and the state dict. */

import { expectDict, notNegative, type OptionChecks, refuseSurplus } from '../../arguments.js'
import { converted } from '../../conversion.js'
import { SpikenormError } from '../../errors.js'
import { formatValue } from '../../format-value.js'
import { Module } from '../../module.js'
import { describeValues } from '../../module-text.js'
import { Parameter } from '../../parameter.js'
import { atomically, changed, isAtomic, keepValues } from '../../rollback.js'
import { Tensor, tensor, zeros } from '../../tensor.js'

/** Options of every optimiser. */
export interface OptimizerOptions {
  /** Learning rate. */
  lr?: number
  /** Weight decay (an L2 penalty; AdamW decays the parameter itself). Default as in PyTorch. */
  weightDecay?: number
}

/** @internal Checks of the options of every optimiser. */
export const OPTIMIZER_OPTIONS: OptionChecks<OptimizerOptions> = {
  lr: notNegative,
  weightDecay: notNegative,
}

/** A tensor that an optimiser keeps for each parameter, named as in PyTorch's state. */
export interface BufferSpec {
  name: string
  /** The number of steps: int64, shape []. Others are like their parameter. */
  isCount?: boolean
}

/** A parameter that has a gradient, in a step. */
export interface Moved {
  index: number
  parameter: Parameter
  grad: Tensor
  /** Made for this step if it is the parameter's first. */
  buffers: readonly Tensor[]
  isFirst: boolean
}

/** The parameters given to an optimiser, each once. */
function parametersOf(name: string, given: unknown): Parameter[] {
  const refuse: (advice: string, got?: unknown) => never = (advice, got = given) => {
    throw new SpikenormError(
      'ERR_ARGUMENT',
      `${name}: parameters: expected Parameters, as net.parameters() returns them, got ${formatValue(got)}${advice}`,
    )
  }
  const write = `; write new ${name}(net.parameters(), options)`
  if (given instanceof Module || typeof given === 'function') refuse(write)
  if (given instanceof Parameter) refuse(`; write new ${name}([parameter], options)`)
  if (typeof (given as Iterable<unknown> | null | undefined)?.[Symbol.iterator] !== 'function') refuse(write)
  const unique = [...new Set(given as Iterable<unknown>)]
  if (unique.length === 0) {
    refuse('; a module of your own has the parameters of what it registers: call registerModule', [])
  }
  for (const one of unique) {
    if (one instanceof Parameter) continue
    if (Array.isArray(one) && one[1] instanceof Parameter)
      refuse(`, which has names; write new ${name}(net.parameters(), options)`, one)
    if (one !== null && typeof one === 'object' && 'params' in one) {
      refuse('; groups of parameters are not supported: make an optimiser for each', one)
    }
    refuse(write, one)
  }
  return unique as Parameter[]
}

/**
 * What the optimisers share: the parameters, the learning rate and a state dict. A step moves the parameters by the
 * gradients in `.grad`; `zeroGrad()` clears those.
 */
export abstract class Optimizer {
  /** What is moved, each once, in the order given. */
  readonly parameters: readonly Parameter[]
  /** Buffers of each parameter, `null` before its first step. */
  readonly #slots: (readonly Tensor[] | null)[]
  #lr: number

  /** Parameters named twice are stepped once. Throws `ERR_ARGUMENT` for none, or for what is no Parameter. */
  constructor(parameters: Iterable<Parameter>, lr: number) {
    const name = new.target.name
    const unique = parametersOf(name, parameters)
    this.parameters = unique
    this.#slots = unique.map(() => null)
    this.#lr = notNegative(name, 'lr', lr)
  }

  /** @internal Buffers of each parameter; none where the options need none. */
  protected abstract get buffers(): readonly BufferSpec[]

  /** @internal Moves parameters and buffers in one native call, which moves nothing when it throws. */
  protected abstract move(moved: readonly Moved[]): void

  /** Learning rate of the next step; schedules set it. */
  get lr(): number {
    return this.#lr
  }

  set lr(lr: number) {
    const before = this.#lr
    this.#lr = notNegative(this.constructor.name, 'lr', lr)
    changed({
      undo: () => {
        this.#lr = before
      },
    })
  }

  /** Moves every parameter that has a gradient. Throws having moved none. */
  step(): void {
    refuseSurplus('step', arguments, [])
    const isPartOfCall = isAtomic()
    try {
      atomically(() => this.#step(isPartOfCall))
    } catch (thrown) {
      throw thrown instanceof SpikenormError ? thrown.within(`${this.constructor.name}: step`) : thrown
    }
  }

  /** With `isPartOfCall` it may be undone after it has succeeded. */
  #step(isPartOfCall: boolean): void {
    const moved: Moved[] = []
    for (const [index, parameter] of this.parameters.entries()) {
      const { grad } = parameter
      if (grad === null || grad.isDisposed) continue
      const isFirst = this.#slots[index] === null
      moved.push({ index, parameter, grad, buffers: this.#buffersOf(index, parameter), isFirst })
    }
    if (isPartOfCall) {
      for (const { parameter, buffers } of moved)
        for (const values of [parameter, ...buffers]) keepValues(values)
    }
    if (moved.length > 0) this.move(moved)
  }

  /** Buffers for a step, in the dtype and on the device of the parameter: its module may have been converted. */
  #buffersOf(index: number, parameter: Parameter): readonly Tensor[] {
    const { shape, dtype, device } = parameter
    const before = this.#slots[index] ?? null
    const buffers: Tensor[] = []
    // Undone with the step, however far it has come.
    changed({
      undo: () => {
        this.#slots[index] = before
        for (const buffer of buffers) if (!before?.includes(buffer)) buffer.dispose()
      },
      release: () => {
        for (const buffer of before ?? []) if (!buffers.includes(buffer)) buffer.dispose()
      },
    })
    for (const [place, { isCount = false }] of this.buffers.entries()) {
      const buffer = before?.[place]
      if (buffer) buffers.push(converted(buffer, { dtype, device }))
      else buffers.push(isCount ? zeros([], { dtype: 'int64', device }) : zeros(shape, { dtype, device }))
    }
    this.#slots[index] = buffers
    return buffers
  }

  /** The class and its options. */
  toString(): string {
    return describeValues(this, ['lr'])
  }

  /** What JSON says of an optimiser: the text of {@link toString}. Its values are in {@link stateDict}. */
  toJSON(): string {
    return this.toString()
  }

  /** @internal What Node prints. */
  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString()
  }

  /** Sets every gradient to `null`. */
  zeroGrad(): void {
    for (const parameter of this.parameters) parameter.zeroGrad()
  }

  /**
   * The learning rate (`lr`, float64) and, for every parameter that has been stepped, its buffers by PyTorch's names
   * (`{index}.step`, `{index}.exp_avg`, `{index}.momentum_buffer`, …), as copies. Fits `saveSafetensors`. Other
   * options are the constructor's.
   */
  stateDict(): Record<string, Tensor> {
    const dict: Record<string, Tensor> = { lr: tensor([this.#lr], [], { dtype: 'float64' }) }
    for (const [index, buffers] of this.#slots.entries()) {
      for (const [place, { name }] of this.buffers.entries()) {
        const buffer = buffers?.[place]
        if (buffer) dict[`${index}.${name}`] = buffer.clone()
      }
    }
    return dict
  }

  /** Restores what {@link stateDict} returned. Throws `ERR_STATE_DICT`, having changed nothing, where it does not fit. */
  loadStateDict(dict: Record<string, Tensor>): void {
    expectDict(`${this.constructor.name}: loadStateDict`, dict)
    const known = new Set(['lr'])
    const lr = this.#entry(dict, 'lr', []).item()
    const sources = this.parameters.map((parameter, index) => {
      const keys = this.buffers.map(({ name }) => `${index}.${name}`)
      if (!keys.some((key) => Object.hasOwn(dict, key))) return null
      return this.buffers.map(({ isCount = false }, place) => {
        const key = keys[place] as string
        known.add(key)
        const value = this.#entry(dict, key, isCount ? [] : parameter.shape)
        if (isCount && !(Number.isSafeInteger(value.item()) && value.item() >= 1)) {
          throw this.#mismatch(`${key}: expected a whole number of at least 1, got ${value.item()}`)
        }
        return value
      })
    })
    const unexpected = Object.keys(dict).filter((key) => !known.has(key))
    if (unexpected.length > 0) throw this.#mismatch(`unexpected keys: ${unexpected.join(', ')}`)
    const checkedLr = notNegative(this.constructor.name, 'lr', lr)
    const slots = this.#copiesOf(sources)
    this.lr = checkedLr
    const before = this.#slots.splice(0, slots.length, ...slots)
    changed({
      undo: () => {
        this.#slots.splice(0, before.length, ...before)
        for (const buffer of slots.flat()) buffer?.dispose()
      },
      release: () => {
        for (const buffer of before.flat()) buffer?.dispose()
      },
    })
  }

  /** Copies of buffers, each as its parameter is now: of all, or on an error of none. */
  #copiesOf(sources: readonly (readonly Tensor[] | null)[]): (Tensor[] | null)[] {
    const made: Tensor[] = []
    try {
      return sources.map((source, index) => {
        const { dtype, device } = this.parameters[index] as Parameter
        const copies = source?.map((value, place) => {
          const kind = this.buffers[place]?.isCount ? 'int64' : dtype
          const copy = converted(value, { dtype: kind, device })
          made.push(copy === value ? value.clone() : copy)
          return made.at(-1) as Tensor
        })
        return copies ?? null
      })
    } catch (thrown) {
      for (const copy of made) copy.dispose()
      throw thrown
    }
  }

  #entry(dict: Record<string, Tensor>, key: string, shape: readonly number[]): Tensor {
    const value = Object.hasOwn(dict, key) ? dict[key] : undefined
    if (!(value instanceof Tensor)) throw this.#mismatch(`missing key: ${key}`)
    if (value.shape.join() !== shape.join()) {
      throw this.#mismatch(`${key}: expected shape [${shape.join(', ')}], got [${value.shape.join(', ')}]`)
    }
    return value
  }

  #mismatch(problem: string): SpikenormError {
    return new SpikenormError('ERR_STATE_DICT', `${this.constructor.name}: loadStateDict: ${problem}`)
  }
}

/** Native handles of a step's tensors. */
export function handles(moved: readonly Moved[], pick: (one: Moved) => Tensor | undefined): number[] {
  return moved.map((one) => pick(one)?.id ?? 0)
}
