import { readOptions, type Signature, wholeNumber } from '../arguments.js'
import { native } from '../native.js'
import type { Tensor } from '../tensor.js'
import { WEIGHTED_LAYER_OPTIONS, WeightedLayer, type WeightedLayerOptions } from './weighted-layer.js'

/** Options of {@link Linear}. */
export type LinearOptions = WeightedLayerOptions

const SIGNATURE: Signature<LinearOptions> = {
  leading: ['inFeatures', 'outFeatures'],
  options: WEIGHTED_LAYER_OPTIONS,
  positional: ['bias', 'device', 'dtype'],
}

/**
 * A fully connected layer as `torch.nn.Linear`: `x·weightᵀ + bias` over the last axis of `[N, inFeatures]` or `[T, N, inFeatures]`, the same in both step modes.
 * `weight` is `[outFeatures, inFeatures]`, `bias` `[outFeatures]`; both start as U(±1/√inFeatures), as in PyTorch.
 */
export class Linear extends WeightedLayer {
  /** Extent of the input's last axis. */
  readonly inFeatures: number
  /** Extent of the output's last axis. */
  readonly outFeatures: number

  /** Throws `ERR_ARGUMENT` for what is no whole number above 0. */
  constructor(inFeatures: number, outFeatures: number, options?: LinearOptions) {
    const name = new.target.name
    const checked = readOptions(name, options, arguments, SIGNATURE)
    wholeNumber(name, 'inFeatures', inFeatures)
    wholeNumber(name, 'outFeatures', outFeatures)
    super(() => native.linearSpec(inFeatures, outFeatures), [outFeatures, inFeatures], checked)
    this.inFeatures = inFeatures
    this.outFeatures = outFeatures
  }

  /** @internal */
  protected override run(x: Tensor, bias: number, record: boolean): number {
    return native.linearForward(this.spec.id, x.id, this.weight.id, bias, record)
  }

  /** @internal */
  protected override runBackward(saved: number, dy: number): number {
    return native.linearBackward(saved, dy)
  }
}
