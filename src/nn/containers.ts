/** Modules made of modules. */
import { argumentError, refuseSurplus } from '../arguments.js'
import { SpikenormError } from '../errors.js'
import { enableGrad } from '../grad-mode.js'
import { isLibraryClass } from '../library-classes.js'
import { Module, type StepMode } from '../module.js'
import { native } from '../native.js'
import { atomically } from '../rollback.js'
import { expectGradient, likenessOf, type OutputLike, Tape, type TapeEntry } from '../tape.js'
import { Tensor } from '../tensor.js'
import { Identity } from './identity.js'
import { declareOwn, isOwn } from './own-modules.js'

/** What a forward of a container leaves for its backward. */
interface Entry extends TapeEntry {
  /** How many forwards each module below had pending after it. */
  readonly pending: readonly (readonly [Module, number])[]
  /** Unless what is below looks at the gradient. */
  readonly output: OutputLike | null
}

/**
 * A container hands its mode, `reset` and `detach` down to all below it. Its backward first checks that everything
 * below is where its forward left it.
 */
export abstract class Container extends Module {
  readonly #tape = new Tape<Entry>()

  /** Step mode of the container; setting it sets that of all modules below too, or throws `ERR_STEP_MODE` and sets none. */
  override get stepMode(): StepMode {
    return super.stepMode
  }

  override set stepMode(mode: StepMode) {
    const [, ...below] = this.modules()
    for (const module of [this, ...below]) module.checkStepMode(mode)
    atomically(() => {
      super.stepMode = mode
      for (const module of below) module.stepMode = mode
    })
  }

  /** @internal */
  protected override get tape() {
    return this.#tape
  }

  /** @internal Whether a module below refuses a gradient that does not look like this container's output. */
  protected get checksGradient(): boolean {
    return false
  }

  /** @internal Forward through what is below. */
  protected abstract chain(x: Tensor): Tensor
  /** @internal Backward through what is below. */
  protected abstract chainBackward(dy: Tensor): Tensor

  protected override computeForward(x: Tensor, record: boolean): Tensor {
    if (!record) return this.chain(x)
    // Modules in eval mode inside (frozen ones) are recorded too: the gradient has to pass through them.
    const y = enableGrad(() => this.chain(x))
    const below = this.modules()
    const pending = below.slice(1).map((module) => [module, module.pendingForwards] as const)
    const output = this.checksGradient ? null : likenessOf(y)
    this.#tape.push({ pending, output, isGone: false })
    return y
  }

  protected override computeBackward(dy: Tensor): Tensor {
    const { pending, output } = this.#tape.latest()
    if (output) expectGradient(dy, output)
    for (const [module, expected] of pending) {
      if (module.pendingForwards !== expected) {
        throw new SpikenormError(
          'ERR_NO_FORWARD',
          `backward: expected ${expected} pending forwards in ${module.constructor.name}, as after the forward, got ${module.pendingForwards}`,
        )
      }
    }
    const dx = this.chainBackward(dy)
    this.#tape.pop()
    return dx
  }

  /** Resets this container and all modules below it. */
  override reset(): void {
    atomically(() => {
      this.#tape.clear()
      super.reset()
    })
  }
}

/** Whether a module refuses a gradient that does not look like its output. */
function checksGradient(module: Module): boolean {
  return isLibraryClass(module.constructor) && module.constructor !== Identity
}

/**
 * Runs `value` through `modules` by `apply`, freeing each tensor between two of them once it has been used, where
 * both are known to keep none.
 */
function through(
  modules: readonly Module[],
  value: Tensor,
  apply: (module: Module, value: Tensor) => Tensor,
): Tensor {
  let current = value
  let isMadeByOwn = false
  for (const module of modules) {
    const own = isOwn(module)
    const used = current
    const isFreed = isMadeByOwn && own
    try {
      current = apply(module, used)
    } catch (thrown) {
      if (isFreed) used.dispose()
      throw thrown
    }
    // A container of nothing returns what it was given.
    const isSame = current === used
    if (isFreed && !isSame) used.dispose()
    isMadeByOwn = own && (!isSame || isMadeByOwn)
  }
  return current
}

/**
 * One module after the other. Keys are PyTorch's: `0.weight`, `1.running_mean`, … Iterable; `at(i)` counts from the end
 * where negative. Gradients are taken through the same modules backwards. A forward that throws leaves every module in
 * it as it was.
 */
export class Sequential extends Container {
  readonly #layers: readonly Module[]

  /** Modules first to last; throws `ERR_ARGUMENT` for what is no module. */
  constructor(...modules: Module[]) {
    super()
    for (const [index, module] of modules.entries()) this.registerModule(String(index), module)
    this.#layers = modules
  }

  /** Number of modules. */
  get length(): number {
    return this.#layers.length
  }

  /** The module at `index`, from the end where negative; `undefined` beyond. */
  at(index: number): Module | undefined {
    if (typeof index !== 'number') throw argumentError('at', 'index', 'a number', index)
    return this.#layers.at(index)
  }

  /** The modules, first to last. */
  [Symbol.iterator](): Iterator<Module> {
    return this.#layers[Symbol.iterator]()
  }

  /** @internal */
  protected override get checksGradient(): boolean {
    const last = this.#layers.at(-1)
    return last !== undefined && checksGradient(last)
  }

  /** @internal */
  protected override chain(x: Tensor): Tensor {
    return through(this.#layers, x, (layer, value) => layer.forward(value))
  }

  /** @internal */
  protected override chainBackward(dy: Tensor): Tensor {
    return through(this.#layers.toReversed(), dy, (layer, gradient) => layer.backward(gradient))
  }
}

/**
 * `x + module(x)`, SpikingJelly's residual block with the connection function ADD; keys are `module.…`. Throws `ERR_SHAPE`
 * unless the module keeps the shape.
 */
export class Residual extends Container {
  /** What is added to the input. */
  readonly module: Module

  /** The module has to keep the shape of its input. */
  constructor(module: Module) {
    super()
    refuseSurplus(new.target.name, arguments, ['module'])
    this.module = this.registerModule('module', module)
  }

  /** @internal */
  protected override get checksGradient(): boolean {
    return checksGradient(this.module)
  }

  /** @internal */
  protected override chain(x: Tensor): Tensor {
    return addedTo(x, this.module.forward(x), isOwn(this.module))
  }

  /** @internal */
  protected override chainBackward(dy: Tensor): Tensor {
    return addedTo(dy, this.module.backward(dy), isOwn(this.module))
  }
}

/** `outer + inner`; frees `inner` where it is nobody else's. */
function addedTo(outer: Tensor, inner: Tensor, isFreed: boolean): Tensor {
  try {
    return new Tensor(native.tensorAdd(outer.id, inner.id))
  } finally {
    if (isFreed && inner !== outer) inner.dispose()
  }
}

declareOwn(Sequential)
declareOwn(Residual)
