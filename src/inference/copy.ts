/** Copies of the library's modules: the same values and modes, in memory of their own, without state or gradients. */
import { SpikenormError } from '../errors.js'
import { withoutInitialisation } from '../initialisation.js'
import { BatchNorm1d, BatchNorm2d, BatchNorm3d } from '../layers/batch-norm.js'
import {
  BatchNormThroughTime1d,
  BatchNormThroughTime2d,
  BatchNormThroughTime3d,
} from '../layers/batch-norm-through-time.js'
import { NeuNorm } from '../layers/neu-norm.js'
import { NormLayer, type NormOptions } from '../layers/norm-layer.js'
import {
  TemporalEffectiveBatchNorm1d,
  TemporalEffectiveBatchNorm2d,
  TemporalEffectiveBatchNorm3d,
} from '../layers/temporal-effective-batch-norm.js'
import {
  ThresholdDependentBatchNorm1d,
  ThresholdDependentBatchNorm2d,
  ThresholdDependentBatchNorm3d,
} from '../layers/threshold-dependent-batch-norm.js'
import type { Module } from '../module.js'
import { Conv2d } from '../nn/conv.js'
import { Flatten } from '../nn/flatten.js'
import { Identity } from '../nn/identity.js'
import { Linear } from '../nn/linear.js'
import { IFNode, LIFNode } from '../nn/neurons.js'
import { AvgPool2d, MaxPool2d } from '../nn/pooling.js'
import type { TensorOptions } from '../tensor.js'

/** Constructs a module with the same arguments. By exact class: what a subclass adds is not known here. */
const makers = new Map<unknown, (module: Module) => Module>()

function maker<M extends Module>(
  classes: readonly (new (...args: never[]) => M)[],
  make: (module: M) => Module,
) {
  for (const each of classes) makers.set(each, make as (module: Module) => Module)
}

maker([Conv2d], (conv) => {
  const { inChannels, outChannels, kernelSize, stride, padding, stepMode } = conv
  const bias = conv.bias !== null
  return new Conv2d(inChannels, outChannels, kernelSize, {
    stride,
    padding,
    bias,
    stepMode,
    ...placeOf(conv),
  })
})
maker([Linear], (linear) => {
  const { inFeatures, outFeatures, stepMode } = linear
  return new Linear(inFeatures, outFeatures, { bias: linear.bias !== null, stepMode, ...placeOf(linear) })
})
for (const Norm of [BatchNorm1d, BatchNorm2d, BatchNorm3d]) {
  maker([Norm], (norm) => new Norm(norm.numFeatures, optionsOf(norm)))
}
for (const Norm of [
  ThresholdDependentBatchNorm1d,
  ThresholdDependentBatchNorm2d,
  ThresholdDependentBatchNorm3d,
]) {
  maker([Norm], (norm) => new Norm(norm.alpha, norm.vTh, norm.numFeatures, optionsOf(norm)))
}
for (const Norm of [
  TemporalEffectiveBatchNorm1d,
  TemporalEffectiveBatchNorm2d,
  TemporalEffectiveBatchNorm3d,
  BatchNormThroughTime1d,
  BatchNormThroughTime2d,
  BatchNormThroughTime3d,
]) {
  maker([Norm], (norm) => new Norm(norm.T, norm.numFeatures, optionsOf(norm)))
}
maker([NeuNorm], (norm) => {
  const { inChannels, height, width, k, sharedAcrossChannels, channelsLast, stepMode } = norm
  return new NeuNorm(inChannels, height, width, {
    k,
    sharedAcrossChannels,
    channelsLast,
    stepMode,
    ...placeOf(norm),
  })
})
maker([IFNode], ({ vThreshold, vReset, surrogate, detachReset, stepMode }) => {
  return new IFNode({ vThreshold, vReset, surrogate, detachReset, stepMode })
})
maker([LIFNode], ({ tau, decayInput, vThreshold, vReset, surrogate, detachReset, stepMode }) => {
  return new LIFNode({ tau, decayInput, vThreshold, vReset, surrogate, detachReset, stepMode })
})
maker([AvgPool2d], (pool) => new AvgPool2d(pool.kernelSize, windowOf(pool)))
maker([MaxPool2d], (pool) => new MaxPool2d(pool.kernelSize, windowOf(pool)))
maker([Flatten], ({ stepMode }) => new Flatten({ stepMode }))
maker([Identity], ({ stepMode }) => Object.assign(new Identity(), { stepMode }))

/** Dtype and device of a layer's values; nothing for one that has none. */
function placeOf(module: Module): TensorOptions {
  const [first] = [...module.namedParameters(), ...module.namedBuffers()]
  return first ? { dtype: first[1].dtype, device: first[1].device } : {}
}

const windowOf = ({ stride, padding, stepMode }: AvgPool2d | MaxPool2d) => ({ stride, padding, stepMode })

function optionsOf(norm: NormLayer): NormOptions {
  const { eps, momentum, affine, channelsLast, stepMode } = norm
  // The flag may have been toggled since: whether there are buffers was settled by the constructor.
  const trackRunningStats = norm.namedBuffers().length > 0
  return { eps, momentum, affine, trackRunningStats, channelsLast, stepMode, ...placeOf(norm) }
}

/** Whether {@link copyOf} knows modules of exactly this one's class. */
export function isCopyable(module: Module): boolean {
  return makers.has(module.constructor)
}

/** A copy of a module that has none below it. Throws `ERR_ARGUMENT` for a class that is not the library's own. */
export function copyOf(module: Module): Module {
  const make = makers.get(module.constructor)
  if (!make) {
    throw new SpikenormError('ERR_ARGUMENT', `${module.constructor.name} is not a class of this library`)
  }
  const copy = withoutInitialisation(() => make(module))
  if (copy instanceof NormLayer) copy.trackRunningStats = (module as NormLayer).trackRunningStats
  const state = module.stateDict()
  copy.loadStateDict(state)
  for (const value of Object.values(state)) value.dispose()
  return copy.train(module.training)
}
