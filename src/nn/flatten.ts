import { readOptions, type Signature, stepMode } from '../arguments.js'
import { SpikenormError } from '../errors.js'
import { Module, type StepMode } from '../module.js'
import { expectGradient, likenessOf, type OutputLike, Tape, type TapeEntry } from '../tape.js'
import type { Tensor } from '../tensor.js'

/** Options of {@link Flatten}. */
export interface FlattenOptions {
  /** Default `'s'`. */
  stepMode?: StepMode
}

const SIGNATURE: Signature<FlattenOptions> = { leading: [], options: { stepMode } }

interface Entry extends TapeEntry {
  readonly input: readonly number[]
  readonly output: OutputLike
}

/**
 * `[N, ...]` to `[N, features]`, as `torch.nn.Flatten`; in step mode `'m'` `[T, N, ...]` to `[T, N, features]`. Shares the
 * input's memory.
 */
export class Flatten extends Module {
  readonly #tape = new Tape<Entry>()

  /** Takes a step mode and nothing else. */
  constructor(options?: FlattenOptions) {
    super()
    this.stepMode = readOptions(new.target.name, options, arguments, SIGNATURE).stepMode ?? 's'
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
    const leading = this.stepMode === 'm' ? 2 : 1
    if (x.shape.length < leading) {
      const axes = leading === 2 ? '[T, N, ...]' : '[N, ...]'
      throw new SpikenormError(
        'ERR_SHAPE',
        `input: expected ${axes} in step mode '${this.stepMode}', got shape [${x.shape.join(', ')}]`,
      )
    }
    const features = x.shape.slice(leading).reduce((product, extent) => product * extent, 1)
    const y = x.reshape([...x.shape.slice(0, leading), features])
    if (record) this.#tape.push({ input: x.shape, output: likenessOf(y), isGone: false })
    return y
  }

  protected override computeBackward(dy: Tensor): Tensor {
    const { input, output } = this.#tape.latest()
    expectGradient(dy, output)
    const dx = dy.reshape(input)
    this.#tape.pop()
    return dx
  }

  /** Pending forwards are dropped. */
  override reset(): void {
    this.#tape.clear()
  }
}
