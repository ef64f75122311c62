/** The training kit: what a spiking net needs around the normalisation layers. */
export { type Container, Residual, Sequential } from './containers.js'
export { Conv2d, type Conv2dOptions } from './conv.js'
export { Flatten, type FlattenOptions } from './flatten.js'
export { Identity } from './identity.js'
export { Linear, type LinearOptions } from './linear.js'
export { crossEntropy, type Labels, LossAndGrad } from './losses.js'
export {
  IFNode,
  type IFNodeOptions,
  LIFNode,
  type LIFNodeOptions,
  type Neuron,
  type Surrogate,
} from './neurons.js'
export { PerStep, type PerStepOptions } from './per-step.js'
export { AvgPool2d, MaxPool2d, type Pool2d, type PoolOptions } from './pooling.js'
export type { WeightedLayer, WeightedLayerOptions } from './weighted-layer.js'
export type { Pair } from './window.js'
