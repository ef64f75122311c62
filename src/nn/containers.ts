/** Modules made of modules. */
import { type Checkpoint, combined } from '../checkpoint.js'
import { SpikenormError } from '../errors.js'
import { enableGrad } from '../grad-mode.js'
import { Module, type StepMode } from '../module.js'
import { native } from '../native.js'
import { Tape, type TapeEntry } from '../tape.js'
import { Tensor } from '../tensor.js'
import { declareOwn, isOwn } from './own-modules.js'

/** How many forwards each module below had pending after one forward of the container. */
interface Entry extends TapeEntry {
  pending: ReadonlyMap<Module, number>
}

/**
 * A container hands its mode, `reset` and `detach` down to all below it. Its backward first checks that everything
 * below is where its forward left it, so that it does not fail half-way.
 */
export abstract class Container extends Module {
  readonly #tape = new Tape<Entry>()

  /** Step mode of the container; setting it sets that of all modules below too, or throws `ERR_STEP_MODE` and sets none. */
  override get stepMode(): StepMode {
    return super.stepMode
  }

  override set stepMode(mode: StepMode) {
    for (const module of this.modules()) module.checkStepMode(mode)
    super.stepMode = mode
    for (const child of this.children()) child.stepMode = mode
  }

  /** @internal */
  protected override get tape() {
    return this.#tape
  }

  #below(): Module[] {
    return this.modules().slice(1)
  }

  /** @internal Forward through what is below. */
  protected abstract chain(x: Tensor): Tensor
  /** @internal Backward through what is below. */
  protected abstract chainBackward(dy: Tensor): Tensor

  protected override computeForward(x: Tensor, record: boolean): Tensor {
    if (!record) return this.chain(x)
    // Modules in eval mode inside (frozen ones) are recorded too: the gradient has to pass through them.
    const y = enableGrad(() => this.chain(x))
    this.#tape.push({ pending: new Map(this.#below().map((module) => [module, module.pendingForwards])) })
    return y
  }

  protected override computeBackward(dy: Tensor): Tensor {
    const { pending } = this.#tape.latest()
    for (const module of this.#below()) {
      const expected = pending.get(module)
      if (expected !== undefined && module.pendingForwards !== expected) {
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
    this.#tape.clear()
    for (const child of this.children()) child.reset()
  }

  /** Detaches all modules below it. */
  override detach(): void {
    for (const child of this.children()) child.detach()
  }

  /** @internal */
  override checkpoint(): Checkpoint {
    return combined(super.checkpoint(), this.#tape.checkpoint())
  }
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
    const next = apply(module, current)
    // A container of nothing returns what it was given.
    const isSame = next === current
    if (isMadeByOwn && own && !isSame) current.dispose()
    isMadeByOwn = own && (!isSame || isMadeByOwn)
    current = next
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
    return this.#layers.at(index)
  }

  /** The modules, first to last. */
  [Symbol.iterator](): Iterator<Module> {
    return this.#layers[Symbol.iterator]()
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
    this.module = this.registerModule('module', module)
  }

  /** @internal */
  protected override chain(x: Tensor): Tensor {
    return addedTo(x, this.module.forward(x), this.module)
  }

  /** @internal */
  protected override chainBackward(dy: Tensor): Tensor {
    return addedTo(dy, this.module.backward(dy), this.module)
  }
}

/** `outer + inner`; `inner` came from `module` for this sum. */
function addedTo(outer: Tensor, inner: Tensor, module: Module): Tensor {
  const sum = new Tensor(native.tensorAdd(outer.id, inner.id))
  if (inner !== outer && isOwn(module)) inner.dispose()
  return sum
}

declareOwn(Sequential)
declareOwn(Residual)
