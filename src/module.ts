/** The base of every layer: parameters, modes, recording and state, with PyTorch's and SpikingJelly's names. */
import { atomically, type Checkpoint, checkpointOf } from './checkpoint.js'
import { type Device, parseDevice } from './device.js'
import { type DType, expectFloatDType, isDType, parameterDType } from './dtype.js'
import { SpikenormError } from './errors.js'
import { enableGrad, isRecording } from './grad-mode.js'
import { Saved } from './handle.js'
import { type LoadResult, loadIntoModule } from './state-dict.js'
import type { Tape, TapeEntry } from './tape.js'
import { expectTensor, type Parameter, type Tensor } from './tensor.js'

/** `'s'`: one time step a call. `'m'`: all steps at once, with a leading T. SpikingJelly's `step_mode`. */
export type StepMode = 's' | 'm'

const BOTH_STEP_MODES: readonly StepMode[] = ['s', 'm']

/** What {@link Module.vjp} gives. */
export interface Vjp {
  /** Output of the forward. */
  y: Tensor
  /** Gradient of the input, given that of `y`; once at most. Parameter gradients accumulate in `.grad`. */
  backward(dy: Tensor): Tensor
}

/**
 * The base of every layer: what `torch.nn.Module` and SpikingJelly's `base.StepModule` are there. A module of your own
 * extends it, gives `computeForward` and `computeBackward` and registers what it is made of; there is no autograd, so
 * its backward is written by hand.
 */
export abstract class Module {
  #training = true
  #stepMode: StepMode = 's'
  readonly #parameters = new Map<string, Parameter>()
  readonly #buffers = new Map<string, Tensor>()
  readonly #modules = new Map<string, Module>()

  /** Computes the output of {@link forward}; with `record`, keeps what backward needs. */
  protected abstract computeForward(x: Tensor, record: boolean): Tensor

  /** What {@link backward} does: computes the input's gradient of the latest recorded forward and accumulates the parameters'. */
  protected abstract computeBackward(dy: Tensor): Tensor

  /**
   * Output for input `x`, in its dtype; the class says which shapes it takes. Recorded for {@link backward} in training
   * mode and within {@link enableGrad}. Throws `ERR_SHAPE`, `ERR_DTYPE`, `ERR_DEVICE` and what the class names, having
   * changed nothing.
   */
  forward(x: Tensor): Tensor {
    // As `naming` does, without its closure: this is called for every step of every layer.
    try {
      const input = expectTensor(undefined, 'input', x)
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
      return this.computeBackward(expectTensor(undefined, 'dy', dy))
    } catch (thrown) {
      throw this.#withName(thrown)
    }
  }

  /**
   * Output for input `x`, and the backward of this very forward, as `torch.func.vjp`: for frameworks that take
   * gradients in an order of their own. It is recorded in eval mode too, apart from what {@link backward} takes, and may
   * be called once or never; what it keeps is freed with it. Where a state is carried between calls (NeuNorm, neurons),
   * the later call's comes first.
   */
  vjp(x: Tensor): Vjp {
    const modules = [...new Set(this.modules())]
    const exchange = (entries: readonly (readonly TapeEntry[])[]) =>
      modules.map((module, i) => module.tape?.exchange(entries[i] ?? []) ?? [])
    let recorded: TapeEntry[][] | null = null
    let pending = exchange([])
    try {
      const y = enableGrad(() => this.forward(x))
      const backward = (dy: Tensor) => {
        if (recorded === null) {
          throw new SpikenormError(
            'ERR_NO_FORWARD',
            `${this.constructor.name}: vjp: the backward of this forward has been called before`,
          )
        }
        // Throws where the module has been disposed of, and with it what was saved.
        for (const parameter of this.parameters()) void parameter.id
        pending = exchange(recorded)
        let isDone = false
        try {
          const dx = this.backward(dy)
          isDone = true
          return dx
        } finally {
          const rest = exchange(pending)
          recorded = isDone ? null : rest
        }
      }
      return { y, backward }
    } finally {
      recorded = exchange(pending)
      // Nothing but the closure knows of them any more, and that may be dropped.
      for (const { saved } of recorded.flat()) if (saved instanceof Saved) saved.watch()
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

  /** Whether the module is in training mode, as at first. */
  get training(): boolean {
    return this.#training
  }

  /** Training mode, or with `false` evaluation mode, for this module and all below it. Returns the module. */
  train(mode = true): this {
    for (const module of this.modules()) module.#training = mode
    return this
  }

  /** Evaluation mode for this module and all below it. Returns the module. */
  eval(): this {
    return this.train(false)
  }

  /** Step modes this class can be in. */
  protected get stepModes(): readonly StepMode[] {
    return BOTH_STEP_MODES
  }

  /**
   * Whether a call is one time step (`'s'`) or all of them (`'m'`). Setting it throws `ERR_STEP_MODE` where the class
   * cannot be in that mode; `functional.setStepMode` sets that of a whole net.
   */
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

  /** Makes `parameter` one of this module's, under `name`. Returns it. */
  protected registerParameter(name: string, parameter: Parameter): Parameter {
    this.#parameters.set(name, parameter)
    return parameter
  }

  /** Makes `buffer` one of the tensors that are saved but not trained, under `name`. Returns it. */
  protected registerBuffer(name: string, buffer: Tensor): Tensor {
    this.#buffers.set(name, buffer)
    return buffer
  }

  /** Puts `module` below this one, under `name`. Returns it. Throws `ERR_ARGUMENT` for what is none. */
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

  /** The parameters of this module and all below it: what an optimiser takes. */
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

  /** @internal The recorded forwards of this module alone, where it records any itself. */
  protected get tape(): Tape<TapeEntry> | null {
    return null
  }

  /** Number of recorded forwards that have had no backward yet, of this module alone. */
  get pendingForwards(): number {
    return this.tape?.length ?? 0
  }

  /** @internal Copies this module's own parameters, gradients and state; what it returns puts the copies in their places. */
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

  /** `dispose()` at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.dispose()
  }
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
      tensor.replaceWith(converted)
      converted.dispose()
    }
  }
}
