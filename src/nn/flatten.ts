import { readOptions, type Signature, stepMode } from '../arguments.js'
import { type Checkpoint, combined } from '../checkpoint.js'
import { SpikenormError } from '../errors.js'
import { Module, type StepMode } from '../module.js'
import { Tape, type TapeEntry } from '../tape.js'
import type { Tensor } from '../tensor.js'

/** Options of {@link Flatten}. */
export interface FlattenOptions {
  /** Default `'s'`. */
  stepMode?: StepMode
}

const SIGNATURE: Signature<FlattenOptions> = { leading: [], options: { stepMode } }

interface Entry extends TapeEntry {
  input: readonly number[]
  output: readonly number[]
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
    if (record) this.#tape.push({ input: x.shape, output: y.shape })
    return y
  }

  protected override computeBackward(dy: Tensor): Tensor {
    const { input, output } = this.#tape.latest()
    if (dy.shape.join() !== output.join()) {
      throw new SpikenormError(
        'ERR_SHAPE',
        `dy: expected shape [${output.join(', ')}], got [${dy.shape.join(', ')}]`,
      )
    }
    const dx = dy.reshape(input)
    this.#tape.pop()
    return dx
  }

  /** Pending forwards are dropped. */
  override reset(): void {
    this.#tape.clear()
  }

  /** @internal */
  override checkpoint(): Checkpoint {
    return combined(super.checkpoint(), this.#tape.checkpoint())
  }
}
