/** What the optimisers share: parameters, the learning rate and the state dict. */
import { SpikenormError } from '../../errors.js'
import { finiteNumber } from '../../layers/arguments.js'
import { convertTensor } from '../../module.js'
import { Parameter, Tensor, tensor, zeros } from '../../tensor.js'

export interface OptimizerOptions {
  /** Learning rate. */
  lr?: number
  /** Weight decay (an L2 penalty; AdamW decays the parameter itself). Default as in PyTorch. */
  weightDecay?: number
}

/** State of one parameter: its step count and its buffers, absent before its first step. */
export interface Slot {
  steps: number
  buffers: Tensor[]
}

/** A parameter that has a gradient, in a step. */
export interface Moved {
  index: number
  parameter: Parameter
  grad: Tensor
  /** Steps before this one, and buffers, made if need be. */
  slot: Slot
}

const NO_GRAD_OF_ITS_OWN = 'expected Parameters, as parameters() returns them'

export abstract class Optimizer {
  readonly parameters: readonly Parameter[]
  readonly #slots: Slot[]
  #lr: number

  /** Parameters named twice are stepped once. */
  constructor(parameters: Iterable<Parameter>, lr: number) {
    const unique = [...new Set(parameters)]
    const name = this.constructor.name
    if (unique.length === 0 || unique.some((parameter) => !(parameter instanceof Parameter))) {
      throw new SpikenormError('ERR_ARGUMENT', `${name}: parameters: ${NO_GRAD_OF_ITS_OWN}`)
    }
    this.parameters = unique
    this.#slots = unique.map(() => ({ steps: 0, buffers: [] }))
    this.#lr = finiteNumber(name, 'lr', lr, 0)
  }

  /** Names of the buffers of each parameter, as in PyTorch's state; none where the options need none. */
  protected abstract get bufferNames(): readonly string[]

  /** Moves parameters and buffers in one native call, which moves nothing when it throws. */
  protected abstract move(moved: readonly Moved[]): void

  /** Learning rate of the next step; schedules set it. */
  get lr(): number {
    return this.#lr
  }

  set lr(lr: number) {
    this.#lr = finiteNumber(this.constructor.name, 'lr', lr, 0)
  }

  /** Moves every parameter that has a gradient. Throws having moved none. */
  step(): void {
    const moved: Moved[] = []
    for (const [index, parameter] of this.parameters.entries()) {
      const { grad } = parameter
      if (grad === null || grad.isDisposed) continue
      const slot = this.#slots[index] as Slot
      moved.push({
        index,
        parameter,
        grad,
        slot: { steps: slot.steps, buffers: this.#buffers(slot, parameter) },
      })
    }
    if (moved.length === 0) return
    try {
      this.move(moved)
    } catch (thrown) {
      throw thrown instanceof SpikenormError ? thrown.within(`${this.constructor.name}: step`) : thrown
    }
    for (const { index, slot } of moved) this.#slots[index] = { ...slot, steps: slot.steps + 1 }
  }

  /** Buffers for a step, in the parameter's dtype: its module may have been converted. */
  #buffers(slot: Slot, parameter: Parameter): Tensor[] {
    for (const buffer of slot.buffers) convertTensor(buffer, parameter.dtype)
    if (slot.buffers.length > 0) return slot.buffers
    return this.bufferNames.map(() => zeros(parameter.shape, { dtype: parameter.dtype }))
  }

  /** Sets every gradient to `null`. */
  zeroGrad(): void {
    for (const parameter of this.parameters) {
      parameter.grad?.dispose()
      parameter.grad = null
    }
  }

  /**
   * The learning rate (`lr`, float64) and, for every parameter that has been stepped, its `{index}.step` (int64) and
   * buffers by PyTorch's names (`{index}.momentum_buffer`, `{index}.exp_avg`, …), as copies. Fits
   * `saveSafetensors`. Other options are the constructor's.
   */
  stateDict(): Record<string, Tensor> {
    const dict: Record<string, Tensor> = { lr: tensor([this.#lr], [], { dtype: 'float64' }) }
    for (const [index, { steps, buffers }] of this.#slots.entries()) {
      if (steps === 0) continue
      dict[`${index}.step`] = tensor([steps], [], { dtype: 'int64' })
      for (const [place, name] of this.bufferNames.entries()) {
        const buffer = buffers[place]
        if (buffer) dict[`${index}.${name}`] = buffer.clone()
      }
    }
    return dict
  }

  /** Restores what {@link stateDict} returned. Throws `ERR_STATE_DICT`, having changed nothing, where it does not fit. */
  loadStateDict(dict: Record<string, Tensor>): void {
    const known = new Set(['lr'])
    const lr = this.#entry(dict, 'lr', []).item()
    const slots = this.parameters.map((parameter, index): Slot => {
      if (!Object.hasOwn(dict, `${index}.step`)) return { steps: 0, buffers: [] }
      known.add(`${index}.step`)
      const steps = this.#entry(dict, `${index}.step`, []).item()
      const sources = this.bufferNames.map((name) => {
        known.add(`${index}.${name}`)
        return this.#entry(dict, `${index}.${name}`, parameter.shape)
      })
      if (!Number.isSafeInteger(steps) || steps < 1) {
        throw this.#mismatch(`${index}.step: expected a whole number of at least 1, got ${steps}`)
      }
      return { steps, buffers: sources }
    })
    const unexpected = Object.keys(dict).filter((key) => !known.has(key))
    if (unexpected.length > 0) throw this.#mismatch(`unexpected keys: ${unexpected.join(', ')}`)
    const own = slots.map(({ steps, buffers }, index): Slot => {
      const { dtype } = this.parameters[index] as Parameter
      return {
        steps,
        buffers: buffers.map((source) => (source.dtype === dtype ? source.clone() : source.to(dtype))),
      }
    })
    this.lr = lr
    for (const [index, slot] of own.entries()) {
      for (const buffer of this.#slots[index]?.buffers ?? []) buffer.dispose()
      this.#slots[index] = slot
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
