/**
 * Which modules are known to keep no tensor they are given and none they return, so that what goes from one to the next
 * can be freed as soon as it has been used. What users write or change may look at it later and is left to the garbage
 * collector.
 */
import { BatchNorm1d, BatchNorm2d, BatchNorm3d } from '../layers/batch-norm.js'
import {
  BatchNormThroughTime1d,
  BatchNormThroughTime2d,
  BatchNormThroughTime3d,
} from '../layers/batch-norm-through-time.js'
import { NeuNorm } from '../layers/neu-norm.js'
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
import { declareLibraryClasses, isLibraryClass } from '../library-classes.js'
import { Module } from '../module.js'
import { Conv2d } from './conv.js'
import { Flatten } from './flatten.js'
import { Identity } from './identity.js'
import { Linear } from './linear.js'
import { IFNode, LIFNode } from './neurons.js'
import { AvgPool2d, MaxPool2d } from './pooling.js'

declareLibraryClasses(
  BatchNorm1d,
  BatchNorm2d,
  BatchNorm3d,
  BatchNormThroughTime1d,
  BatchNormThroughTime2d,
  BatchNormThroughTime3d,
  NeuNorm,
  TemporalEffectiveBatchNorm1d,
  TemporalEffectiveBatchNorm2d,
  TemporalEffectiveBatchNorm3d,
  ThresholdDependentBatchNorm1d,
  ThresholdDependentBatchNorm2d,
  ThresholdDependentBatchNorm3d,
  Conv2d,
  Flatten,
  Identity,
  Linear,
  IFNode,
  LIFNode,
  AvgPool2d,
  MaxPool2d,
)

// As they are now: a spy put in their place later sees tensors, and may keep them.
const { forward, backward } = Module.prototype

/** Adds a container, which is as trustworthy as what is in it. */
export function declareOwn(container: unknown): void {
  declareLibraryClasses(container)
}

/** Whether `module` and all below it are exactly classes of this library, with no method replaced. */
export function isOwn(module: Module): boolean {
  return (
    isLibraryClass(module.constructor) &&
    module.forward === forward &&
    module.backward === backward &&
    module.children().every(isOwn)
  )
}
