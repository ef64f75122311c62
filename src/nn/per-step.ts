/** A module of its own for every time step: what per-step norms become when they are folded into the layer before. */
import { argumentError, boolean, readOptions, type Signature, stepMode } from '../arguments.js'
import { SpikenormError } from '../errors.js'
import type { Module, StepMode } from '../module.js'
import { native } from '../native.js'
import { changed } from '../rollback.js'
import type { TapeEntry } from '../tape.js'
import { Tensor, zeros } from '../tensor.js'
import { Container } from './containers.js'
import { declareOwn, isOwn } from './own-modules.js'

/** Options of {@link PerStep}. */
export interface PerStepOptions {
  /** Of this module and all below it. Default `'s'` for this one, and those below as they are. */
  stepMode?: StepMode
  /**
   * Whether step 0 follows step T − 1, so that no `reset()` is needed between sequences. In step mode `'m'` a call then
   * has exactly T steps and begins at step 0, as TEBN's does. Default false.
   */
  cyclic?: boolean
}

const SIGNATURE: Signature<PerStepOptions> = { leading: ['modules'], options: { stepMode, cyclic: boolean } }

/** What backward needs beside the container's own entry. */
interface Recorded {
  /** Modules of the forward's steps, in order, and the step mode each was in. */
  readonly steps: readonly (readonly [Module, StepMode])[]
  readonly isMulti: boolean
}

/**
 * `modules[t]` at time step t. In step mode `'s'` for `[N, ...]`, one step a call; in `'m'` for `[T, N, ...]`. The step
 * index is 0 after `reset()`, moves by one per time step in both modes and is kept between calls; a step past the last
 * module throws `ERR_TIME_STEP`. Keys are `0.…`, `1.…`. The modules may be in either step mode; their outputs must be of
 * one shape and dtype.
 */
export class PerStep extends Container {
  /** Number of time steps. */
  readonly T: number
  /** Whether step 0 follows step T − 1. */
  readonly cyclic: boolean
  readonly #steps: readonly Module[]
  /** By the container's entry of the same forward: there is one tape, so that `vjp` can take an entry off it. */
  readonly #recorded = new WeakMap<TapeEntry, Recorded>()
  #step = 0

  /** `modules[t]` is that of time step t; throws `ERR_ARGUMENT` for none, and for what is no module. */
  constructor(modules: readonly Module[], options?: PerStepOptions) {
    super()
    const checked = readOptions(new.target.name, options, arguments, SIGNATURE)
    if (!Array.isArray(modules) || modules.length === 0) {
      throw argumentError(new.target.name, 'modules', 'an array with a module per time step', modules)
    }
    for (const [t, module] of modules.entries()) this.registerModule(String(t), module)
    this.#steps = [...modules]
    this.T = modules.length
    this.cyclic = checked.cyclic ?? false
    if (checked.stepMode !== undefined) this.stepMode = checked.stepMode
  }

  /** The module of time step `t`; counts from the end where negative. */
  at(t: number): Module | undefined {
    if (typeof t !== 'number') throw argumentError('at', 't', 'a number', t)
    return this.#steps.at(t)
  }

  /** The modules, in the order of time. */
  [Symbol.iterator](): Iterator<Module> {
    return this.#steps[Symbol.iterator]()
  }

  protected override computeForward(x: Tensor, record: boolean): Tensor {
    const isMulti = this.stepMode === 'm'
    const count = this.#stepsOf(x, isMulti)
    const modules = this.#steps.slice(this.#step, this.#step + count)
    const steps = modules.map((module) => [module, module.stepMode] as const)
    const y = super.computeForward(x, record)
    if (record) this.#recorded.set(this.tape.latest(), { steps, isMulti })
    const next = this.#step + count
    this.#moveTo(this.cyclic ? next % this.T : next)
    return y
  }

  #moveTo(step: number): void {
    const before = this.#step
    this.#step = step
    changed({
      undo: () => {
        this.#step = before
      },
    })
  }

  /** Number of time steps of an input, checked against those that are left. */
  #stepsOf(x: Tensor, isMulti: boolean): number {
    const count = isMulti ? (x.shape[0] ?? 0) : 1
    if (isMulti && count === 0) {
      throw new SpikenormError(
        'ERR_SHAPE',
        `input: expected [T, N, ...] in step mode 'm', got shape [${x.shape.join(', ')}]`,
      )
    }
    const [first, end] = [this.#step, this.#step + count]
    if (this.cyclic && isMulti && (first !== 0 || count !== this.T)) {
      throw new SpikenormError(
        'ERR_TIME_STEP',
        `input: expected T = ${this.T} time steps from step 0 on, got ${count} from step ${first} on`,
      )
    }
    if (end > this.T) {
      throw new SpikenormError(
        'ERR_TIME_STEP',
        `input: steps ${first}..${end} reach past T = ${this.T}; call reset() before a new sequence`,
      )
    }
    return count
  }

  /** @internal */
  protected override chain(x: Tensor): Tensor {
    const modules = this.#steps.slice(this.#step)
    const forward = (t: number, step: Tensor) => {
      const module = modules[t] as Module
      return ofOneStep(module, module.stepMode, step, (value) => module.forward(value))
    }
    if (this.stepMode === 's') return forward(0, x)
    return stepwise(x, modules, [...Array(x.shape[0]).keys()], forward)
  }

  /** @internal */
  protected override chainBackward(dy: Tensor): Tensor {
    const { steps, isMulti } = this.#recorded.get(this.tape.latest()) as Recorded
    const backward = (t: number, step: Tensor) => {
      const [module, mode] = steps[t] as readonly [Module, StepMode]
      return ofOneStep(module, mode, step, (value) => module.backward(value))
    }
    if (!isMulti) return backward(0, dy)
    const modules = steps.map(([module]) => module)
    return stepwise(dy, modules, [...steps.keys()].reverse(), backward)
  }

  /** Step index to 0; pending forwards are dropped, and all modules below are reset. */
  override reset(): void {
    super.reset()
    this.#moveTo(0)
  }
}

/** Gives `module` one time step `[N, ...]` in the form its step mode asks for: as it is, or with T = 1 in front. */
function ofOneStep(module: Module, mode: StepMode, step: Tensor, apply: (value: Tensor) => Tensor): Tensor {
  if (mode === 's') return apply(step)
  const made = [step.reshape([1, ...step.shape])] as [Tensor, Tensor?]
  try {
    const result = apply(made[0])
    made[1] = result
    return result.reshape(result.shape.slice(1))
  } finally {
    if (isOwn(module)) for (const value of made) value?.dispose()
  }
}

/**
 * Applies `apply` to the rows of `values`, of which `modules[t]` takes row t, in the given order and puts the results
 * together in their places. Each is copied into the whole, whose shape the first one tells.
 */
function stepwise(
  values: Tensor,
  modules: readonly Module[],
  order: readonly number[],
  apply: (t: number, step: Tensor) => Tensor,
): Tensor {
  let whole: Tensor | undefined
  try {
    for (const t of order) {
      const step = rowOf(values, t)
      let result: Tensor | undefined
      try {
        result = apply(t, step)
        whole ??= zeros([order.length, ...result.shape], { dtype: result.dtype, device: result.device })
        putRow(whole, t, result)
      } finally {
        if (isOwn(modules[t] as Module)) {
          step.dispose()
          result?.dispose()
        }
      }
    }
  } catch (thrown) {
    whole?.dispose()
    throw thrown
  }
  return whole as Tensor
}

/** `whole[t] = result`. */
function putRow(whole: Tensor, t: number, result: Tensor): void {
  if (result.dtype !== whole.dtype) {
    throw new SpikenormError(
      'ERR_DTYPE',
      `step ${t}: expected ${whole.dtype}, as from the other steps, got ${result.dtype}`,
    )
  }
  const place = rowOf(whole, t)
  try {
    // Not copy_: what it overwrites is nobody's.
    native.tensorCopy(place.id, result.id)
  } finally {
    place.dispose()
  }
}

/** `values[t]`, sharing its memory. */
function rowOf(values: Tensor, t: number): Tensor {
  return new Tensor(native.tensorRow(values.id, t))
}

declareOwn(PerStep)
