import { Module } from '../module.js'
import type { Tensor } from '../tensor.js'

/**
 * Returns its input, as `torch.nn.Identity`: what stands in a net in the place of a layer that was folded into another. Takes any
 * arguments and heeds none, as PyTorch's.
 */
export class Identity extends Module {
  /** @internal */
  protected override get isBackwardAtomic(): boolean {
    return true
  }

  protected override computeForward(x: Tensor): Tensor {
    return x
  }

  protected override computeBackward(dy: Tensor): Tensor {
    return dy
  }
}
