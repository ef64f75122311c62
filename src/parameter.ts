/** Parameters and their gradients, which a backward adds to once all of it has succeeded. */
import { argumentError } from './arguments.js'
import { type ErrorCode, SpikenormError } from './errors.js'
import { native } from './native.js'
import { changed, isAtomic, isCapturing, keepValues, made } from './rollback.js'
import { expectTensor, Tensor, type TensorOptions } from './tensor.js'

/** Gradients of calls that are still going on, in the order they came. */
interface Waiting {
  readonly gradients: number[]
  /** The first of them, once it has become the one that the others are added to. */
  sum: Tensor | null
}

/** By parameter. They are added to `.grad` together at the end of the outermost call, or when it is read before. */
const waiting = new Map<Parameter, Waiting>()

/**
 * A tensor that is trained: `grad` accumulates in backward and is `null` before the first one and after `zeroGrad()`. Made
 * by modules; optimisers move its values.
 */
export class Parameter extends Tensor {
  #grad: Tensor | null = null

  /**
   * A parameter with a copy of a tensor's values, in its dtype and on its device, for a module of your own:
   * `this.registerParameter('w', new Parameter(ones([3])))`. Throws `ERR_DTYPE` for integers and half types, beside which
   * parameters are float32.
   */
  constructor(data: Tensor)
  /** @internal Takes over what a native call has just made. */
  constructor(id: number)
  constructor(data: Tensor | number) {
    super(typeof data === 'number' ? data : copyOf(data))
  }

  /**
   * Gradient of the parameter's shape, dtype and device, or `null`. Setting it throws `ERR_DTYPE`, `ERR_SHAPE` or
   * `ERR_DEVICE` where it is of another, `ERR_DISPOSED` for one that has been disposed of and `ERR_ARGUMENT` for what is
   * no tensor.
   */
  get grad(): Tensor | null {
    // A module may look at the gradients of those it is made of before its own backward ends.
    if (waiting.size > 0 && waiting.has(this)) Parameter.#addWaiting([this], true)
    return this.#grad
  }

  set grad(grad: Tensor | null) {
    if (grad !== null) this.#expectGradient(grad)
    this.#replace(grad, false)
  }

  /** @internal Sets the gradient to `null`, freeing the one there is. */
  zeroGrad(): void {
    this.#replace(null, true)
  }

  #expectGradient(grad: Tensor): void {
    // Throws once disposed of; a tensor may know its shape from before.
    if (grad === undefined) throw argumentError('Parameter', 'grad', 'a Tensor or null', grad)
    expectTensor('Parameter', 'grad', grad).idFor('grad')
    const describe = ({ dtype, shape, device }: Tensor) => `${dtype} [${shape.join(', ')}] on ${device}`
    const refuse = (code: ErrorCode) => {
      throw new SpikenormError(code, `grad: expected ${describe(this)}, got ${describe(grad)}`)
    }
    if (grad.dtype !== this.dtype) refuse('ERR_DTYPE')
    if (grad.shape.join() !== this.shape.join()) refuse('ERR_SHAPE')
    if (grad.device !== this.device) refuse('ERR_DEVICE')
  }

  /** Puts `grad` in the place of what has been accumulated and what is waiting. */
  #replace(grad: Tensor | null, frees: boolean): void {
    const before = this.#grad
    const dropped = waiting.get(this)
    this.#grad = grad
    waiting.delete(this)
    changed({
      undo: () => {
        this.#grad = before
        if (dropped) waiting.set(this, dropped)
      },
      release: () => {
        if (frees) before?.dispose()
        for (const gradient of dropped?.gradients ?? []) native.free(gradient)
      },
      releases: before,
    })
  }

  /** @internal The native number of the gradient that a backward may add to at once; 0 where it is to return its own. */
  get gradId(): number {
    return isAtomic() ? 0 : (this.#live?.id ?? 0)
  }

  get #live(): Tensor | null {
    return this.#grad?.isDisposed ? null : this.#grad
  }

  /** @internal Accumulates a native gradient, which is taken over or freed; at the end of the outermost call if one is running. */
  accumulate(gradient: number): void {
    if (!isAtomic()) {
      const { grad } = this
      if (grad === null || grad.isDisposed) {
        this.#grad = new Tensor(gradient)
      } else {
        native.tensorsAccumulate([grad.id], [gradient])
        native.free(gradient)
      }
      return
    }
    const here = waiting.get(this) ?? { gradients: [], sum: null }
    here.gradients.push(gradient)
    waiting.set(this, here)
    changed({
      undo: () => {
        here.gradients.pop()
        if (here.gradients.length > 0) {
          native.free(gradient)
          return
        }
        waiting.delete(this)
        if (here.sum) here.sum.dispose()
        else native.free(gradient)
      },
    })
  }

  /** @internal Accumulates native gradients of different parameters: all, or where it throws none. They are taken over or freed. */
  static accumulateAll(parameters: readonly Parameter[], gradients: readonly number[]): void {
    if (isAtomic()) {
      for (const [i, parameter] of parameters.entries()) parameter.accumulate(gradients[i] as number)
      return
    }
    const [targets, sources]: [number[], number[]] = [[], []]
    for (const [i, parameter] of parameters.entries()) {
      const live = parameter.#live
      if (!live) continue
      targets.push(live.id)
      sources.push(gradients[i] as number)
    }
    try {
      if (targets.length > 0) native.tensorsAccumulate(targets, sources)
    } catch (thrown) {
      for (const gradient of gradients) native.free(gradient)
      throw thrown
    }
    for (const [i, parameter] of parameters.entries()) {
      const gradient = gradients[i] as number
      if (parameter.#live) native.free(gradient)
      else parameter.#grad = new Tensor(gradient)
    }
  }

  /** @internal Adds all gradients that are waiting, or throws having added none: the end of a call. */
  static settle(): void {
    if (waiting.size === 0) return
    if (isCapturing()) {
      Parameter.#addWaiting([...waiting.keys()], false)
      return
    }
    const [targets, sources]: [number[], number[]] = [[], []]
    for (const [parameter, here] of waiting) {
      const live = parameter.#live
      here.sum ??= live ? null : new Tensor(here.gradients[0] as number)
      const target = (live ?? (here.sum as Tensor)).id
      for (let i = live ? 0 : 1; i < here.gradients.length; i++) {
        targets.push(target)
        sources.push(here.gradients[i] as number)
      }
    }
    if (targets.length > 0) native.tensorsAccumulate(targets, sources)
    // Nothing that could be undone comes after.
    for (const source of sources) native.free(source)
    for (const [parameter, { sum }] of waiting) parameter.#grad = parameter.#live ?? sum
    waiting.clear()
  }

  /** With `isEarly` the call goes on, and may yet be undone. */
  static #addWaiting(parameters: readonly Parameter[], isEarly: boolean): void {
    const sums = parameters.map((parameter) => {
      const here = waiting.get(parameter) as Waiting
      const before = parameter.#live
      if (!before) here.sum ??= new Tensor(here.gradients[0] as number)
      const added = before ? here.gradients : here.gradients.slice(1)
      return { parameter, here, sum: before ?? (here.sum as Tensor), added }
    })
    if (isEarly) for (const { sum, added } of sums) if (added.length > 0) keepValues(sum)
    native.tensorsAccumulate(
      sums.flatMap(({ sum, added }) => added.map(() => sum.id)),
      sums.flatMap(({ added }) => added),
    )
    for (const { parameter, here, sum, added } of sums) {
      const before = parameter.#grad
      parameter.#grad = sum
      waiting.delete(parameter)
      if (sum === here.sum) made(sum)
      changed({
        undo: () => {
          parameter.#grad = before
          waiting.set(parameter, here)
        },
        release: () => {
          for (const gradient of added) native.free(gradient)
        },
        releases: sum,
      })
    }
  }

  /** Frees the parameter and its gradient. */
  override dispose(): void {
    this.#grad?.dispose()
    super.dispose()
  }
}

function copyOf(data: unknown): number {
  const { dtype } = expectTensor('Parameter', 'data', data)
  if (dtype !== 'float32' && dtype !== 'float64') {
    throw argumentError('Parameter', 'data', 'a tensor of float32 or float64', dtype, 'ERR_DTYPE')
  }
  return native.tensorCast((data as Tensor).idFor('Parameter: data'), dtype)
}

/** @internal A new parameter filled with `value`. */
export function newParameter(
  shape: readonly number[],
  value: number,
  { dtype, device }: Required<TensorOptions>,
): Parameter {
  return new Parameter(native.tensorFull([...shape], value, dtype, device))
}
