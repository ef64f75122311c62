import { wholeNumber } from '../layers/arguments.js'
import { native } from '../native.js'
import type { Tensor } from '../tensor.js'
import { WeightedLayer, type WeightedLayerOptions } from './weighted-layer.js'

export type LinearOptions = WeightedLayerOptions

/**
 * `x·weightᵀ + bias` over the last axis of `[N, inFeatures]` or `[T, N, inFeatures]`, the same in both step modes.
 * `weight` is `[outFeatures, inFeatures]`, `bias` `[outFeatures]`; both start as U(±1/√inFeatures), as in PyTorch.
 */
export class Linear extends WeightedLayer {
  readonly inFeatures: number
  readonly outFeatures: number

  constructor(inFeatures: number, outFeatures: number, options: LinearOptions = {}) {
    const name = new.target.name
    wholeNumber(name, 'inFeatures', inFeatures)
    wholeNumber(name, 'outFeatures', outFeatures)
    super(() => native.linearSpec(inFeatures, outFeatures), [outFeatures, inFeatures], options)
    this.inFeatures = inFeatures
    this.outFeatures = outFeatures
  }

  protected override run(x: Tensor, bias: number, record: boolean): number[] {
    return native.linearForward(this.spec.id, x.id, this.weight.id, bias, record)
  }

  protected override runBackward(saved: number, dy: number): number[] {
    return native.linearBackward(saved, dy)
  }
}
