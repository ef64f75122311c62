/**
 * Batch-norm folding: in evaluation a norm is an affine map per channel, `y = a·x + c` with `a = weight/√(var + eps)` and
 * `c = bias − a·mean`, which the convolution or linear layer before it can do at no cost: `a·(W·x + b) + c =
 * (a·W)·x + (a·b + c)`. Where the norm differs from step to step, so do the folded weights.
 */
import { refuseSurplus } from '../arguments.js'
import { SpikenormError } from '../errors.js'
import { formatValue } from '../format-value.js'
import { withoutInitialisation } from '../initialisation.js'
import { BatchNorm1d, BatchNorm2d } from '../layers/batch-norm.js'
import { BatchNormThroughTime1d, BatchNormThroughTime2d } from '../layers/batch-norm-through-time.js'
import { NeuNorm } from '../layers/neu-norm.js'
import { NormLayer } from '../layers/norm-layer.js'
import {
  TemporalEffectiveBatchNorm1d,
  TemporalEffectiveBatchNorm2d,
} from '../layers/temporal-effective-batch-norm.js'
import {
  ThresholdDependentBatchNorm1d,
  ThresholdDependentBatchNorm2d,
} from '../layers/threshold-dependent-batch-norm.js'
import { Module, type StepMode } from '../module.js'
import { Conv2d } from '../nn/conv.js'
import { Linear } from '../nn/linear.js'
import { PerStep } from '../nn/per-step.js'
import { type Tensor, tensor } from '../tensor.js'
import { type AffineMap, affineMaps } from './affine-maps.js'

/** Norms of `[N, C]`, which follow a linear layer, and of `[N, C, H, W]`, which follow a convolution. */
const AFTER_LINEAR = [
  BatchNorm1d,
  ThresholdDependentBatchNorm1d,
  TemporalEffectiveBatchNorm1d,
  BatchNormThroughTime1d,
]
const AFTER_CONV2D = [
  BatchNorm2d,
  ThresholdDependentBatchNorm2d,
  TemporalEffectiveBatchNorm2d,
  BatchNormThroughTime2d,
]

/**
 * Folds `norm` into the layer before it: one module, in eval mode, that computes what `norm.eval()` makes of the layer's
 * output, exact but for the rounding of its weights (computed in float64, rounded once). The inputs' training modes do not
 * matter, and they are left as they are; the result shares nothing with them.
 *
 * - BatchNorm and tdBN give a layer of the same class with a bias.
 * - TEBN gives an `nn.PerStep` of T such layers, weighted by `scale[t]`; cyclic, so that it needs no `reset()`, as TEBN.
 * - BNTT gives an `nn.PerStep` of T such layers, each from the statistics and weight of its step. Like BNTT it keeps a step
 *   index between calls, until `reset()`.
 *
 * Throws `ERR_ARGUMENT` for what cannot be folded: a 2d norm after a Linear, a 1d norm after a Conv2d, a 3d norm, NeuNorm
 * (a state that recurs over time), another number of channels, a norm with `channelsLast` after a Conv2d, whose channels come
 * first, and a norm without running statistics (`trackRunningStats: false`), which uses those of each batch in eval mode too.
 * `ERR_STEP_MODE` for a convolution and a norm of different step modes, `ERR_DTYPE` and `ERR_DEVICE` where they do not fit.
 */
export function fold(layer: Conv2d | Linear, norm: NormLayer & { readonly T: number }): PerStep
/** Folds `norm` into `layer`, an `nn.PerStep` only for TEBN and BNTT: see the overload above. */
export function fold<Layer extends Conv2d | Linear>(layer: Layer, norm: NormLayer): Layer | PerStep
export function fold(layer: Conv2d | Linear, norm: NormLayer): Conv2d | Linear | PerStep {
  refuseSurplus('fold', arguments, ['layer', 'norm'])
  expectFoldable(layer, norm)
  const { maps, isPerStep, isCyclic } = affineMaps(norm)
  if (!isPerStep) return folded(layer, maps[0] as AffineMap, norm.stepMode)
  const modules = maps.map((map) => folded(layer, map, norm.stepMode))
  return new PerStep(modules, { stepMode: norm.stepMode, cyclic: isCyclic }).eval()
}

/** Throws unless `norm` can be folded into `layer`, saying why not. */
function expectFoldable(layer: unknown, norm: unknown): void {
  const refuse: (message: string) => never = (message) => {
    throw new SpikenormError('ERR_ARGUMENT', `fold: ${message}`)
  }
  if (!(layer instanceof Conv2d || layer instanceof Linear) || !Module.isMade(layer)) {
    refuse(`layer: expected a Conv2d or Linear, got ${formatValue(layer)}`)
  }
  const { weight, stepMode } = layer
  if (norm instanceof NeuNorm) {
    refuse('norm: NeuNorm subtracts a state that recurs over time, which no weight and bias can stand for')
  }
  if (!(norm instanceof NormLayer) || !Module.isMade(norm)) {
    refuse(`norm: expected one of the batch norms, got ${formatValue(norm)}`)
  }
  const fitting = layer instanceof Conv2d ? AFTER_CONV2D : AFTER_LINEAR
  if (!fitting.some((norms) => norm instanceof norms)) {
    const [axes, names] =
      layer instanceof Conv2d
        ? ['[N, C, H, W]', 'BatchNorm2d, ThresholdDependentBatchNorm2d']
        : ['[N, C]', 'BatchNorm1d, ThresholdDependentBatchNorm1d']
    refuse(
      `norm: a ${nameOf(layer)} gives ${axes}: expected a norm for it (${names}, …), got ${nameOf(norm)}`,
    )
  }
  // Behind a linear layer the channels are the last axis anyway.
  if (layer instanceof Conv2d && norm.channelsLast) {
    refuse(
      `norm: a ${nameOf(layer)} gives [N, C, H, W], but the ${nameOf(norm)} takes [N, H, W, C] (channelsLast)`,
    )
  }
  const channels = weight.shape[0] as number
  if (norm.numFeatures !== channels) {
    refuse(
      `norm: ${nameOf(norm)} has ${norm.numFeatures} features, but the ${nameOf(layer)} has ${channels} outputs`,
    )
  }
  // The flag trackRunningStats may have been toggled since; what is used in eval mode is whatever buffers there are.
  if (norm.namedBuffers().length === 0) {
    refuse(
      `norm: ${nameOf(norm)} has no running statistics (trackRunningStats: false): in eval mode it uses those of ` +
        'each batch, which are not known beforehand',
    )
  }
  // A linear layer is the same in both modes; a convolution's output has the axes of its mode.
  if (layer instanceof Conv2d && stepMode !== norm.stepMode) {
    throw new SpikenormError(
      'ERR_STEP_MODE',
      `fold: norm: expected step mode '${stepMode}', that of the Conv2d, got '${norm.stepMode}'; set both alike first`,
    )
  }
  for (const [name, value] of [...norm.namedParameters(), ...norm.namedBuffers()]) {
    if (value.dtype !== weight.dtype && value.dtype !== 'int64') {
      throw new SpikenormError(
        'ERR_DTYPE',
        `fold: norm: ${name}: expected ${weight.dtype}, got ${value.dtype}`,
      )
    }
    if (value.device !== weight.device) {
      throw new SpikenormError(
        'ERR_DEVICE',
        `fold: norm: ${name}: expected ${weight.device}, that of the ${nameOf(layer)}, got ${value.device}`,
      )
    }
  }
}

function nameOf(value: unknown): string {
  if (value === null || value === undefined) return String(value)
  return (value as Module).constructor?.name ?? typeof value
}

/** A layer like `layer` whose output is `map` of its output. */
function folded(layer: Conv2d | Linear, { factor, offset }: AffineMap, stepMode: StepMode): Conv2d | Linear {
  const weight = layer.weight.toFloat64Array()
  const bias = layer.bias?.toFloat64Array() ?? new Float64Array(factor.length)
  const inner = weight.length / factor.length
  const result = likeWithBias(layer, stepMode)
  const scaled = weight.map((value, i) => value * (factor[Math.floor(i / inner)] as number))
  round(result.weight, scaled)
  round(
    result.bias as Tensor,
    bias.map((value, c) => value * (factor[c] as number) + (offset[c] as number)),
  )
  return result.eval()
}

/** A layer of the same class and extents with a bias, its values still to be written. */
function likeWithBias(layer: Conv2d | Linear, stepMode: StepMode): Conv2d | Linear {
  const { dtype, device } = layer.weight
  const options = { bias: true, stepMode, dtype, device }
  return withoutInitialisation(() =>
    layer instanceof Conv2d
      ? new Conv2d(layer.inChannels, layer.outChannels, layer.kernelSize, {
          ...options,
          stride: layer.stride,
          padding: layer.padding,
        })
      : new Linear(layer.inFeatures, layer.outFeatures, options),
  )
}

/** Writes float64 values to `target`, rounding them to its dtype. */
function round(target: Tensor, values: Float64Array): void {
  const exact = tensor(values, target.shape)
  target.copy_(exact)
  exact.dispose()
}
