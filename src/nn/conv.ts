import { readOptions, type Signature, wholeNumber } from '../arguments.js'
import { native } from '../native.js'
import type { Tensor } from '../tensor.js'
import { WEIGHTED_LAYER_OPTIONS, WeightedLayer, type WeightedLayerOptions } from './weighted-layer.js'
import { type Pair, pair } from './window.js'

/** Options of {@link Conv2d}. */
export interface Conv2dOptions extends WeightedLayerOptions {
  /** Default 1. */
  stride?: Pair
  /** Zeros added on both sides. Default 0. */
  padding?: Pair
}

const SIGNATURE: Signature<Conv2dOptions> = {
  leading: ['inChannels', 'outChannels', 'kernelSize'],
  options: {
    ...WEIGHTED_LAYER_OPTIONS,
    stride: (where, name, value) => pair(where, name, value, 1),
    padding: (where, name, value) => pair(where, name, value, 0),
  },
  positional: ['stride', 'padding', '', '', 'bias'],
}

/**
 * Convolution, as `torch.nn.Conv2d` without dilation and groups, of `[N, C, H, W]`; in step mode `'m'` of `[T, N, C, H, W]`, each step on its own. `weight` is
 * `[outChannels, inChannels, kh, kw]`, `bias` `[outChannels]`; both start as U(±1/√(inChannels·kh·kw)), as in
 * PyTorch. The output is ⌊(size + 2·padding − kernel)/stride⌋ + 1 along each axis; an image smaller than the kernel
 * throws `ERR_SHAPE`.
 */
export class Conv2d extends WeightedLayer {
  /** Channels of the input. */
  readonly inChannels: number
  /** Channels of the output. */
  readonly outChannels: number
  /** Height and width of the kernel. */
  readonly kernelSize: readonly [number, number]
  /** Steps of the window, down and across. */
  readonly stride: readonly [number, number]
  /** Zeros added on both sides, above and below, left and right. */
  readonly padding: readonly [number, number]

  /** Throws `ERR_ARGUMENT` for what is no whole number in its range. */
  constructor(inChannels: number, outChannels: number, kernelSize: Pair, options?: Conv2dOptions) {
    const name = new.target.name
    const checked = readOptions(name, options, arguments, SIGNATURE)
    wholeNumber(name, 'inChannels', inChannels)
    wholeNumber(name, 'outChannels', outChannels)
    const window = {
      kernelSize: pair(name, 'kernelSize', kernelSize, 1),
      stride: pair(name, 'stride', checked.stride ?? 1, 1),
      padding: pair(name, 'padding', checked.padding ?? 0, 0),
    }
    const shape = [outChannels, inChannels, ...window.kernelSize]
    super(() => native.conv2DSpec(inChannels, outChannels, window), shape, checked)
    this.inChannels = inChannels
    this.outChannels = outChannels
    this.kernelSize = window.kernelSize
    this.stride = window.stride
    this.padding = window.padding
  }

  /** @internal */
  protected override run(x: Tensor, bias: number, record: boolean): number {
    return native.conv2DForward(this.spec.id, x.id, this.stepMode === 'm', this.weight.id, bias, record)
  }

  /** @internal */
  protected override runBackward(saved: number, dy: number): number {
    return native.conv2DBackward(saved, dy)
  }
}
