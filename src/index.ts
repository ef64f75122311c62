/** spikenorm: the normalisation layers of deep spiking neural networks, for Node.js. */
export { type CudaDevice, type CudaEvent, CudaGraph, cuda } from './cuda.js'
export type { Device } from './device.js'
export type { DType, NestedNumbers, TensorData, TypedArray } from './dtype.js'
export { type ErrorCode, SpikenormError } from './errors.js'
export type { FilePath, FileURL } from './file-path.js'
/** Operations on whole nets, with the names of `spikingjelly.activation_based.functional`. */
export * as functional from './functional.js'
export { enableGrad, noGrad } from './grad-mode.js'
export type { Handle } from './handle.js'
export { fold } from './inference/fold.js'
export { type FoldNetOptions, foldNet } from './inference/fold-net.js'
export { BatchNorm1d, BatchNorm2d, BatchNorm3d } from './layers/batch-norm.js'
export {
  BatchNormThroughTime1d,
  BatchNormThroughTime2d,
  BatchNormThroughTime3d,
} from './layers/batch-norm-through-time.js'
export { NeuNorm, type NeuNormOptions } from './layers/neu-norm.js'
export { NormLayer, type NormOptions } from './layers/norm-layer.js'
export {
  TemporalEffectiveBatchNorm1d,
  TemporalEffectiveBatchNorm2d,
  TemporalEffectiveBatchNorm3d,
} from './layers/temporal-effective-batch-norm.js'
export {
  type ThresholdDependentBatchNorm,
  ThresholdDependentBatchNorm1d,
  ThresholdDependentBatchNorm2d,
  ThresholdDependentBatchNorm3d,
} from './layers/threshold-dependent-batch-norm.js'
export { Module, type StepMode } from './module.js'
/** The training kit: what a spiking net needs around the normalisation layers, with PyTorch's and SpikingJelly's names. */
export * as nn from './nn/index.js'
/** Optimisers and a learning-rate schedule, by the rules of `torch.optim`. */
export * as optim from './nn/optim.js'
export { Parameter } from './parameter.js'
export {
  type LoadPyTorchOptions,
  loadPyTorch,
  loadPyTorchCheckpoint,
  type PyTorchValue,
} from './pytorch-file/load.js'
export { manualSeed, randperm } from './random.js'
export { emptyCache, getNumThreads, type MemoryStats, memoryStats, setNumThreads } from './runtime.js'
export {
  type LoadSafetensorsOptions,
  loadSafetensors,
  loadSafetensorsMetadata,
  type SaveSafetensorsOptions,
  saveSafetensors,
} from './safetensors.js'
export type { LoadResult } from './state-dict.js'
export {
  type DevicePointer,
  full,
  ones,
  Tensor,
  type TensorOptions,
  tensor,
  zeros,
} from './tensor.js'
export type { Vjp } from './vjp.js'
