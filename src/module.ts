/** The base of every layer: parameters, modes, recording and state, with PyTorch's and SpikingJelly's names. */
import { argumentError, boolean, expectDict, readOptions, readTarget } from './arguments.js'
import { type Conversion, Conversions } from './conversion.js'
import type { Device } from './device.js'
import { type DType, expectFloatDType, parameterDType } from './dtype.js'
import { SpikenormError } from './errors.js'
import { formatValue } from './format-value.js'
import { enableGrad, isRecording } from './grad-mode.js'
import { isLibraryClass } from './library-classes.js'
import { describeModule } from './module-text.js'
import { Parameter } from './parameter.js'
import { atomically, changed } from './rollback.js'
import { copiesOf, eachOnce, LOAD_STATE_DICT, type LoadResult, loadIntoModule } from './state-dict.js'
import type { Tape, TapeEntry } from './tape.js'
import { expectTensor, Tensor } from './tensor.js'
import { type Vjp, vjpOf } from './vjp.js'

/** `'s'`: one time step a call. `'m'`: all steps at once, with a leading T. SpikingJelly's `step_mode`. */
export type StepMode = 's' | 'm'

const BOTH_STEP_MODES: readonly StepMode[] = ['s', 'm']

/**
 * The base of every layer: what `torch.nn.Module` and SpikingJelly's `base.StepModule` are there. A module of your own
 * extends it, gives `computeForward` and `computeBackward` and registers what it is made of; there is no autograd, so
 * its backward is written by hand.
 */
export abstract class Module {
  readonly #isLibraryClass: boolean
  #training = true
  #stepMode: StepMode = 's'
  #isDisposed = false
  /** Whether the latest forward was. */
  #isRecorded = true
  readonly #parameters = new Map<string, Parameter>()
  readonly #buffers = new Map<string, Tensor>()
  readonly #modules = new Map<string, Module>()
  /** This module and all below it, as after so many registrations. */
  #tree: readonly Module[] = []
  #treeOf = -1

  /** For subclasses. */
  constructor() {
    this.#isLibraryClass = isLibraryClass(new.target)
  }

  /** @internal Whether a value is a module, and no proxy of one or object with its prototype. */
  static isMade(value: object): boolean {
    return #parameters in value
  }

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
      if (this.#isDisposed) throw disposed()
      const input = expectTensor(undefined, 'input', x)
      const record = isRecording(this.#training)
      this.#isRecorded = record
      // A layer of the library makes one native call, which changes nothing when it throws.
      if (this.#isLibraryClass && this.#modules.size === 0) return this.computeForward(input, record)
      this.#expectOwn('computeForward')
      return atomically(() => this.#checked('computeForward', this.computeForward(input, record)), settle)
    } catch (thrown) {
      throw this.#withName(thrown)
    }
  }

  /**
   * Gradient of the input of the latest recorded forward, given that of its output; parameter gradients accumulate
   * in `.grad` once all of it has succeeded. T single-step forwards are followed by T backwards, latest first. Throws
   * `ERR_NO_FORWARD` when nothing is pending. A backward that throws has changed nothing and can be called again.
   */
  backward(dy: Tensor): Tensor {
    try {
      if (this.#isDisposed) throw disposed()
      const gradient = expectTensor(undefined, 'dy', dy)
      if (!this.#isRecorded) this.tape?.skip()
      if (this.#isLibraryClass && this.isBackwardAtomic) return this.computeBackward(gradient)
      this.#expectOwn('computeBackward')
      return atomically(() => this.#checked('computeBackward', this.computeBackward(gradient)), settle)
    } catch (thrown) {
      throw this.#withName(thrown)
    }
  }

  /** @internal Whether the next backward of this layer alone changes nothing when it throws. */
  protected get isBackwardAtomic(): boolean {
    return false
  }

  /** Throws `ERR_ARGUMENT` for a class of a user's that lacks what it has to give. */
  #expectOwn(method: 'computeForward' | 'computeBackward'): void {
    if (typeof this[method] === 'function') return
    const argument = method === 'computeForward' ? 'x, record' : 'dy'
    throw new SpikenormError(
      'ERR_ARGUMENT',
      `${method}: it is missing; a class that extends Module gives ${method}(${argument})`,
    )
  }

  /** What a module of a user's has returned. */
  #checked(method: string, value: unknown): Tensor {
    if (value instanceof Tensor) return value
    throw new SpikenormError(
      'ERR_ARGUMENT',
      `${method}: expected to return a Tensor, got ${formatValue(value)}`,
    )
  }

  /**
   * Output for input `x`, and the backward of this very forward, as `torch.func.vjp`: for frameworks that take
   * gradients in an order of their own. It is recorded in eval mode too, apart from what {@link backward} takes, and may
   * be called once or never; what it keeps is freed with it. Where a state is carried between calls (NeuNorm, neurons),
   * the later call's comes first.
   */
  vjp(x: Tensor): Vjp {
    this.#expectUsable('vjp')
    return vjpOf({
      name: this.constructor.name,
      tapes: this.modules().flatMap((module) => module.tape ?? []),
      forward: () => enableGrad(() => this.forward(x)),
      backward: (dy) => this.backward(dy),
      isDisposed: () => this.#isDisposed,
    })
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
    boolean(`${this.constructor.name}: train`, 'mode', mode)
    for (const module of this.modules()) {
      const before = module.#training
      module.#training = mode
      changed({
        undo: () => {
          module.#training = before
        },
      })
    }
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
    const before = this.#stepMode
    this.#stepMode = mode
    changed({
      undo: () => {
        this.#stepMode = before
      },
    })
  }

  /** @internal Throws `ERR_STEP_MODE` if this module cannot be put in `mode`. */
  checkStepMode(mode: StepMode): void {
    if (!this.stepModes.includes(mode)) {
      const expected = this.stepModes.map((known) => `'${known}'`).join(' or ')
      throw new SpikenormError(
        'ERR_STEP_MODE',
        `${this.constructor.name}: stepMode: expected ${expected}, got ${formatValue(mode)}`,
      )
    }
  }

  // State

  /** Restores the initial state and drops pending forwards, of this module and all below it. */
  reset(): void {
    Module.handDown('reset', this.children())
  }

  /** Keeps the state's value but lets no gradient flow further back through it, in this module and all below it. */
  detach(): void {
    Module.handDown('detach', this.children())
  }

  /** @internal Resets or detaches modules that hand it down themselves, each once: all, or where one throws none. */
  static handDown(what: 'reset' | 'detach', modules: readonly Module[]): void {
    const outer = visited[what]
    const seen = outer ?? new Set()
    visited[what] = seen
    try {
      atomically(() => {
        for (const module of modules) {
          if (seen.has(module) || module.#isDisposed) continue
          seen.add(module)
          module[what]()
        }
      })
    } finally {
      visited[what] = outer
    }
  }

  // Parameters and buffers

  /** Makes `parameter` one of this module's, under `name`. Returns it. Throws `ERR_ARGUMENT` for what is no Parameter. */
  protected registerParameter(name: string, parameter: Parameter): Parameter {
    this.#expectName(name)
    if (!(parameter instanceof Parameter)) {
      const advice = (parameter as unknown) instanceof Tensor ? 'write new Parameter(tensor)' : ''
      throw argumentError(this.constructor.name, name, 'a Parameter', parameter).withAdvice(advice)
    }
    this.#parameters.set(name, parameter)
    return parameter
  }

  /** Makes `buffer` one of the tensors that are saved but not trained, under `name`. Returns it. Throws `ERR_ARGUMENT` for what is no Tensor. */
  protected registerBuffer(name: string, buffer: Tensor): Tensor {
    this.#expectName(name)
    expectTensor(this.constructor.name, name, buffer)
    this.#buffers.set(name, buffer)
    return buffer
  }

  /** Puts `module` below this one, under `name`. Returns it. Throws `ERR_ARGUMENT` for what is no Module, and for one that this module is below. */
  protected registerModule<M extends Module>(name: string, module: M): M {
    this.#expectName(name)
    expectModule(this.constructor.name, name, module)
    if (module.modules().includes(this)) {
      throw new SpikenormError(
        'ERR_ARGUMENT',
        `${this.constructor.name}: ${name}: a module cannot be below itself`,
      )
    }
    this.#modules.set(name, module)
    registrations++
    return module
  }

  #expectName(name: unknown): void {
    if (typeof name !== 'string' || name === '') {
      throw argumentError(this.constructor.name, 'name', 'a name', name)
    }
  }

  /** `[name, module]` of the modules directly below this one. */
  namedChildren(): [string, Module][] {
    return [...this.#modules]
  }

  /** The class and its options, and below it a line for each module in it, as PyTorch's `repr`. */
  toString(): string {
    return describeModule(this)
  }

  /** What JSON says of a module: the text of {@link toString}. Its values are in {@link stateDict}. */
  toJSON(): string {
    return this.toString()
  }

  /** @internal What Node prints. */
  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString()
  }

  /** The modules directly below this one, each once. */
  children(): Module[] {
    return [...new Set(this.#modules.values())]
  }

  /** This module and all below it, parents first, each once. */
  modules(): Module[] {
    if (this.#treeOf !== registrations) {
      const all = new Set<Module>()
      this.#collect(all)
      this.#tree = [...all]
      this.#treeOf = registrations
    }
    return [...this.#tree]
  }

  #collect(all: Set<Module>): void {
    if (all.has(this)) return
    all.add(this)
    for (const module of this.#modules.values()) module.#collect(all)
  }

  /** `[name, parameter]` of this module and all below it, named as in PyTorch; each parameter once, under its first name. */
  namedParameters(): [string, Parameter][] {
    return eachOnce(this.#named((module) => module.#parameters))
  }

  /** The parameters of this module and all below it, each once: what an optimiser takes. */
  parameters(): Parameter[] {
    return this.namedParameters().map(([, parameter]) => parameter)
  }

  /** `[name, buffer]` of this module and all below it, named as in PyTorch; each buffer once, under its first name. */
  namedBuffers(): [string, Tensor][] {
    return eachOnce(this.#named((module) => module.#buffers))
  }

  /** By every name, those of shared modules and parameters too. */
  #named<T>(own: (module: Module) => Map<string, T>, prefix = ''): [string, T][] {
    const named: [string, T][] = [...own(this)].map(([name, value]) => [prefix + name, value])
    for (const [name, module] of this.#modules) named.push(...module.#named(own, `${prefix}${name}.`))
    return named
  }

  /** What the state dict is made of. */
  #stateEntries(): [string, Tensor][] {
    return [
      ...this.#named<Tensor>((module) => module.#parameters),
      ...this.#named((module) => module.#buffers),
    ]
  }

  /** Sets every gradient to `null`. */
  zeroGrad(): void {
    for (const parameter of this.parameters()) parameter.zeroGrad()
  }

  /**
   * Parameters and buffers by PyTorch's names, as copies: a snapshot that later training leaves alone (PyTorch
   * returns aliases). What is shared is there under each of its names. Step index and state are not part of it.
   */
  stateDict(): Record<string, Tensor> {
    this.#expectUsable('stateDict')
    return this.naming(() => copiesOf(this.#stateEntries()))
  }

  /**
   * Copies values in by name, rounding where dtypes differ. Throws `ERR_STATE_DICT`, having changed nothing, on a
   * missing or unexpected key (unless `strict: false`) and on any wrong shape.
   */
  loadStateDict(dict: Record<string, Tensor>, options?: { strict?: boolean }): LoadResult {
    const where = `${this.constructor.name}: loadStateDict`
    const { strict = true } = readOptions(where, options, arguments, LOAD_STATE_DICT)
    expectDict(where, dict)
    this.#expectUsable('loadStateDict')
    return this.naming(() => loadIntoModule(this.#stateEntries(), dict, strict))
  }

  /**
   * Moves this module and all below it to a dtype or device, in place: all of it, or on an error nothing. Half types
   * keep float32 parameters. Throws `ERR_ARGUMENT` while forwards are pending.
   */
  to(deviceOrDtype: Device | DType): this {
    this.#expectUsable('to')
    const where = `${this.constructor.name}: to`
    const { device, dtype } = readTarget(where, deviceOrDtype, arguments)
    const target: Conversion =
      device === undefined ? { dtype: parameterDType(expectFloatDType(dtype, where)) } : { device }
    const modules = this.modules()
    for (const module of modules) {
      if (module.pendingForwards > 0) {
        throw new SpikenormError(
          'ERR_ARGUMENT',
          `${module.constructor.name}: to: ${module.pendingForwards} forwards are pending; call backward() or reset() first`,
        )
      }
    }
    const conversions = new Conversions(target)
    try {
      // Everything is copied before anything changes: memory may run out half-way.
      for (const module of modules) module.naming(() => module.convert(conversions))
      conversions.apply()
    } finally {
      conversions.dispose()
    }
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

  /** @internal Adds what this module itself has: parameters, gradients, buffers and state. */
  protected convert(conversions: Conversions): void {
    for (const parameter of this.#parameters.values()) {
      conversions.add(parameter)
      if (parameter.grad && !parameter.grad.isDisposed) conversions.add(parameter.grad)
    }
    for (const buffer of this.#buffers.values()) conversions.add(buffer)
  }

  /** Throws `ERR_DISPOSED`, naming the module, where this one or one below it has been disposed of. */
  #expectUsable(method: string): void {
    const gone = this.modules().find((module) => module.#isDisposed)
    if (gone) throw disposed().within(`${gone.constructor.name}: ${method}`)
  }

  /**
   * Frees parameters, gradients, buffers and what is pending, of this module and all below it, by the `dispose` of each.
   * Using one of them afterwards throws `ERR_DISPOSED`; `reset()` and disposing again do nothing.
   */
  dispose(): void {
    if (this.#isDisposed) return
    this.#isDisposed = true
    const parts = [
      // What a module of a user's keeps for its backward.
      () => !this.#isLibraryClass && this.reset(),
      ...this.children().map((module) => () => module.#isDisposed || module.dispose()),
      () => this.tape?.clear(),
      ...[...this.#parameters.values(), ...this.#buffers.values()].map((value) => () => value.dispose()),
    ]
    forAll(parts)
  }

  /** `dispose()` at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** How often a module has been put below another. */
let registrations = 0

/** What has been reset or detached in the call that is going on. */
const visited: Record<'reset' | 'detach', Set<Module> | null> = { reset: null, detach: null }

/** The end of the outermost call: parameter gradients reach `.grad`. */
const settle = () => Parameter.settle()

function disposed(): SpikenormError {
  return new SpikenormError('ERR_DISPOSED', 'the module has been disposed of')
}

/** Runs everything, and throws what the first that failed has thrown. */
function forAll(bodies: readonly (() => unknown)[]): void {
  const failures: unknown[] = []
  for (const body of bodies) {
    try {
      body()
    } catch (thrown) {
      failures.push(thrown)
    }
  }
  if (failures.length > 0) throw failures[0]
}

/** @internal `value`, which is a module; throws `ERR_ARGUMENT`, saying what to write, otherwise. */
export function expectModule(where: string, name: string, value: unknown): Module {
  if (value instanceof Module && Module.isMade(value)) return value
  throw argumentError(where, name, 'a Module', value).withAdvice(adviceFor(value))
}

/** What may have been meant by a value in the place of a module. */
function adviceFor(value: unknown): string {
  if (Array.isArray(value)) return 'write the modules one by one, without the array'
  if (typeof value !== 'function') return ''
  if (value.prototype instanceof Module) return `write new ${value.name}(…)`
  return 'a step of your own is a class that extends Module'
}
