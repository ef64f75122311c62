/** The base of every layer: parameters, modes, recording and state, with PyTorch's and SpikingJelly's names. */
import { atomically, type Checkpoint, checkpointOf } from './checkpoint.js'
import { type Device, parseDevice } from './device.js'
import { type DType, expectFloatDType, isDType, parameterDType } from './dtype.js'
import { SpikenormError } from './errors.js'
import { isRecording } from './grad-mode.js'
import { type LoadResult, loadIntoModule } from './state-dict.js'
import { type Parameter, Tensor } from './tensor.js'

/** `'s'`: one time step a call. `'m'`: all steps at once, with a leading T. */
export type StepMode = 's' | 'm'

const BOTH_STEP_MODES: readonly StepMode[] = ['s', 'm']

export abstract class Module {
  #training = true
  #stepMode: StepMode = 's'
  readonly #parameters = new Map<string, Parameter>()
  readonly #buffers = new Map<string, Tensor>()
  readonly #modules = new Map<string, Module>()

  /** Computes the output; with `record`, keeps what backward needs. */
  protected abstract computeForward(x: Tensor, record: boolean): Tensor

  /** Computes the input's gradient of the latest recorded forward and accumulates the parameters'. */
  protected abstract computeBackward(dy: Tensor): Tensor

  /** Output for input `x`. Recorded for {@link backward} in training mode. */
  forward(x: Tensor): Tensor {
    // As `naming` does, without its closure: this is called for every step of every layer.
    try {
      const input = expectTensor('input', x)
      const record = isRecording(this.#training)
      if (this.#modules.size === 0) return this.computeForward(input, record)
      return atomically(this, () => this.computeForward(input, record))
    } catch (thrown) {
      throw this.#withName(thrown)
    }
  }

  /**
   * Gradient of the input of the latest recorded forward, given that of its output; parameter gradients
   * accumulate in `.grad`. T single-step forwards are followed by T backwards, latest first. Throws
   * `ERR_NO_FORWARD` when nothing is pending.
   */
  backward(dy: Tensor): Tensor {
    try {
      return this.computeBackward(expectTensor('dy', dy))
    } catch (thrown) {
      throw this.#withName(thrown)
    }
  }

  /** Runs `body`, naming this layer in its errors. */
  protected naming<R>(body: () => R): R {
    try {
      return body()
    } catch (thrown) {
      throw this.#withName(thrown)
    }
  }

  #withName(thrown: unknown): unknown {
    return thrown instanceof SpikenormError ? thrown.within(this.constructor.name) : thrown
  }

  // Modes

  get training(): boolean {
    return this.#training
  }

  /** Training mode for this module and all below it. */
  train(mode = true): this {
    for (const module of this.modules()) module.#training = mode
    return this
  }

  /** Evaluation mode for this module and all below it. */
  eval(): this {
    return this.train(false)
  }

  /** Step modes this class can be in. */
  protected get stepModes(): readonly StepMode[] {
    return BOTH_STEP_MODES
  }

  get stepMode(): StepMode {
    return this.#stepMode
  }

  set stepMode(mode: StepMode) {
    this.checkStepMode(mode)
    this.#stepMode = mode
  }

  /** @internal Throws `ERR_STEP_MODE` if this module cannot be put in `mode`. */
  checkStepMode(mode: StepMode): void {
    if (!this.stepModes.includes(mode)) {
      const expected = this.stepModes.map((known) => `'${known}'`).join(' or ')
      throw new SpikenormError(
        'ERR_STEP_MODE',
        `${this.constructor.name}: stepMode: expected ${expected}, got '${String(mode)}'`,
      )
    }
  }

  // State

  /** Restores the initial state and drops pending forwards. */
  reset(): void {}

  /** Keeps the state's value but lets no gradient flow further back through it. */
  detach(): void {}

  /** @internal What a forward of this module alone may change, to be put back if a forward around it fails. */
  checkpoint(): Checkpoint {
    return checkpointOf([...this.#buffers.values()])
  }

  // Parameters and buffers

  protected registerParameter(name: string, parameter: Parameter): Parameter {
    this.#parameters.set(name, parameter)
    return parameter
  }

  protected registerBuffer(name: string, buffer: Tensor): Tensor {
    this.#buffers.set(name, buffer)
    return buffer
  }

  protected registerModule<M extends Module>(name: string, module: M): M {
    if (!(module instanceof Module)) {
      throw new SpikenormError('ERR_ARGUMENT', `${this.constructor.name}: ${name}: expected a Module`)
    }
    this.#modules.set(name, module)
    return module
  }

  /** The modules directly below this one. */
  children(): Module[] {
    return [...this.#modules.values()]
  }

  /** This module and all below it, parents first. */
  modules(): Module[] {
    return [this, ...this.children().flatMap((child) => child.modules())]
  }

  /** `[name, parameter]` of this module and all below it, named as in PyTorch. */
  namedParameters(): [string, Parameter][] {
    return this.#named((module) => module.#parameters)
  }

  parameters(): Parameter[] {
    return this.namedParameters().map(([, parameter]) => parameter)
  }

  /** `[name, buffer]` of this module and all below it, named as in PyTorch. */
  namedBuffers(): [string, Tensor][] {
    return this.#named((module) => module.#buffers)
  }

  #named<T>(own: (module: Module) => Map<string, T>, prefix = ''): [string, T][] {
    const named: [string, T][] = [...own(this)].map(([name, value]) => [prefix + name, value])
    for (const [name, module] of this.#modules) named.push(...module.#named(own, `${prefix}${name}.`))
    return named
  }

  /** Sets every gradient to `null`. */
  zeroGrad(): void {
    for (const parameter of this.parameters()) {
      parameter.grad?.dispose()
      parameter.grad = null
    }
  }

  /**
   * Parameters and buffers by PyTorch's names, as copies: a snapshot that later training leaves alone (PyTorch
   * returns aliases). Step index and state are not part of it.
   */
  stateDict(): Record<string, Tensor> {
    const entries = [...this.namedParameters(), ...this.namedBuffers()]
    return Object.fromEntries(entries.map(([name, value]) => [name, value.clone()]))
  }

  /**
   * Copies values in by name, rounding where dtypes differ. Throws `ERR_STATE_DICT`, having changed nothing, on a
   * missing or unexpected key (unless `strict: false`) and on any wrong shape.
   */
  loadStateDict(dict: Record<string, Tensor>, { strict = true }: { strict?: boolean } = {}): LoadResult {
    return this.naming(() =>
      loadIntoModule([...this.namedParameters(), ...this.namedBuffers()], dict, strict),
    )
  }

  /**
   * Moves this module and all below it to a dtype or device, in place. Half types keep float32 parameters. Throws
   * `ERR_ARGUMENT` while forwards are pending.
   */
  to(deviceOrDtype: Device | DType): this {
    const target: Conversion = isDType(deviceOrDtype)
      ? { dtype: parameterDType(expectFloatDType(deviceOrDtype)) }
      : { device: parseDevice(deviceOrDtype) }
    const modules = this.modules()
    for (const module of modules) {
      if (module.pendingForwards > 0) {
        throw new SpikenormError(
          'ERR_ARGUMENT',
          `${module.constructor.name}: to: ${module.pendingForwards} forwards are pending; call backward() or reset() first`,
        )
      }
    }
    // Everything is copied before anything changes: memory may run out half-way.
    const commits = modules.map((module) => this.naming(() => module.convert(target)))
    for (const commit of commits) commit()
    return this
  }

  /** Number of recorded forwards that have had no backward yet, of this module alone. */
  get pendingForwards(): number {
    return 0
  }

  /** Copies this module's own parameters, gradients and state; what it returns puts the copies in their places. */
  protected convert(target: Conversion): () => void {
    const grads = [...this.#parameters.values()].flatMap(({ grad }) => grad ?? [])
    return conversionOf([...this.#parameters.values(), ...this.#buffers.values(), ...grads], target)
  }

  /** Frees parameters, gradients, buffers and what is pending, of this module and all below it. */
  dispose(): void {
    for (const module of this.modules()) {
      module.reset()
      for (const value of [...module.#parameters.values(), ...module.#buffers.values()]) value.dispose()
    }
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

function expectTensor(name: string, value: unknown): Tensor {
  if (!(value instanceof Tensor)) {
    throw new SpikenormError(
      'ERR_ARGUMENT',
      `${name}: expected a Tensor, got ${value === null ? 'null' : typeof value}`,
    )
  }
  return value
}

/** What tensors are to become; int64 ones keep their dtype. */
export interface Conversion {
  dtype?: DType
  device?: Device
}

/** Copies tensors; what it returns makes each of them its copy, keeping its identity. */
export function conversionOf(tensors: readonly Tensor[], { dtype, device }: Conversion): () => void {
  const pairs = tensors.map((tensor) => {
    const moved = device === undefined ? tensor : tensor.to(device)
    return [tensor, dtype === undefined || tensor.dtype === 'int64' ? moved : moved.to(dtype)] as const
  })
  return () => {
    for (const [tensor, converted] of pairs) {
      if (converted === tensor) continue
      tensor.replaceWith(converted.id)
      converted.dispose()
    }
  }
}
