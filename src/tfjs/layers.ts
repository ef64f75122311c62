/**
 * spikenorm/tfjs/layers: the norms, and the neurons between which they stand, as layers of tf.layers. Needs
 * \@tensorflow/tfjs-core and \@tensorflow/tfjs-layers, peer dependencies.
 *
 * A call takes whole sequences: inputs are `[N, T, H, W, C]` (batch, time, space, channels; `batchFirst` and
 * `channelsLast` choose otherwise), and what a layer carries over time starts anew with every call. Numbers of channels
 * and time steps come from the input's shape. Weights have PyTorch's names; running statistics are weights that are not
 * trained.
 *
 * A layer whose `trainable` is false is frozen as in Keras since TensorFlow 2: in training too it normalises with its
 * running statistics and leaves them alone. (tf.layers' own batchNormalization goes on with those of the batch.)
 */
import * as tf from '@tensorflow/tfjs-core'
import { initializers, type LayerVariable, layers } from '@tensorflow/tfjs-layers'
import { type Module, type Parameter, SpikenormError, type Tensor } from '../index.js'
import { makeModule } from './kinds.js'
import {
  type AnyArgs,
  configOf,
  type Kind,
  type NeuNormArgs,
  type NeuronArgs,
  type NormArgs,
  readLayerArgs,
  type ThresholdArgs,
} from './layer-arguments.js'
import { run } from './run.js'
import { overwrite, snapshotOf } from './values.js'

export type {
  LayerArgs,
  NeuNormArgs,
  NeuronArgs,
  NormArgs,
  SequenceArgs,
  ThresholdArgs,
} from './layer-arguments.js'

type Shape = Parameters<layers.Layer['build']>[0]
type Kwargs = Parameters<layers.Layer['call']>[1]

/** A tensor of the module and the weight of tf.layers that stands for it. */
type Pair<Value extends Tensor = Tensor> = [Value, LayerVariable]

/** The base of all: the kind of module is the class. */
export abstract class SpikenormLayer extends layers.Layer {
  /** @internal */
  protected abstract readonly kind: Kind
  readonly #args: AnyArgs
  #module: Module | null = null
  #parameters: Pair<Parameter>[] = []
  #buffers: Pair[] = []

  /** @internal */
  constructor(args: AnyArgs = {}) {
    super(args)
    this.#args = { ...args }
  }

  /** The module that computes, once the layer has been built. */
  get module(): Module {
    if (this.#module === null) {
      throw new SpikenormError(
        'ERR_ARGUMENT',
        `${this.kind}: the layer has not been built: it has met no input`,
      )
    }
    return this.#module
  }

  override build(inputShape: Shape): void {
    const shape = (Array.isArray(inputShape[0]) ? inputShape[0] : inputShape) as (number | null)[]
    const module = makeModule(this.kind, this.#args, shape)
    const weights = <Value extends Tensor>(named: [string, Value][], trainable: boolean): Pair<Value>[] =>
      named.map(([name, value]) => {
        const zeros = initializers.zeros()
        const weight = this.addWeight(name, [...value.shape], 'float32', zeros, undefined, trainable)
        tf.tidy(() => {
          weight.write(snapshotOf(value))
        })
        return [value, weight]
      })
    this.#parameters = weights(module.namedParameters(), true)
    this.#buffers = weights(module.namedBuffers(), false)
    this.#module = module
    super.build(inputShape)
  }

  /** Whether `trainable` is false here or in a model around this layer, which sets it on the weights alone. */
  get #isFrozen(): boolean {
    return !this.trainable || (this.#parameters.length > 0 && this.trainableWeights.length === 0)
  }

  override call(inputs: tf.Tensor | tf.Tensor[], kwargs: Kwargs): tf.Tensor {
    return tf.tidy(() => {
      this.invokeCallHook(inputs, kwargs)
      const [input, ...others] = Array.isArray(inputs) ? inputs : [inputs]
      if (others.length > 0) {
        throw new SpikenormError(
          'ERR_ARGUMENT',
          `${this.kind}: input: expected one tensor, got ${1 + others.length}`,
        )
      }
      const module = this.module
      const current = <Value extends Tensor>(pairs: Pair<Value>[]) =>
        pairs.map(([value, weight]) => [value, weight.read()] as const)
      overwrite(`${this.kind}: weights`, current(this.#buffers))
      module.reset()
      // biome-ignore lint/complexity/useLiteralKeys: an index signature
      module.train(kwargs?.['training'] === true && !this.#isFrozen)
      const batchFirst = this.#args.batchFirst ?? true
      const y = run(module, input as tf.Tensor, current(this.#parameters), { batchFirst })
      if (module.training) for (const [buffer, weight] of this.#buffers) weight.write(snapshotOf(buffer))
      return y
    })
  }

  override computeOutputShape(inputShape: Shape): Shape {
    return inputShape
  }

  override getConfig(): tf.serialization.ConfigDict {
    return { ...super.getConfig(), ...configOf(this.#args) }
  }

  override dispose() {
    const result = super.dispose()
    if (result.refCountAfterDispose === 0) this.#module?.dispose()
    return result
  }
}

/** Registers the class of a kind, for models that are loaded, and gives its factory. */
function factory<Args>(kind: Kind): (args?: Args) => SpikenormLayer {
  class KindLayer extends SpikenormLayer {
    static readonly className = `Spikenorm${kind}`
    /** @internal */
    protected override get kind() {
      return kind
    }
  }
  tf.serialization.registerClass(KindLayer, 'spikenorm')
  return function make(args?: Args) {
    return new KindLayer(readLayerArgs(kind, args, arguments))
  }
}

/** `[N, T, C]` or `[N, T, L, C]`; without T in step mode `'s'`. */
export const batchNorm1d = factory<NormArgs>('BatchNorm1d')
/** `[N, T, H, W, C]`; without T in step mode `'s'`. */
export const batchNorm2d = factory<NormArgs>('BatchNorm2d')
/** `[N, T, D, H, W, C]`; without T in step mode `'s'`. */
export const batchNorm3d = factory<NormArgs>('BatchNorm3d')
/** `[N, T, C]` or `[N, T, L, C]`. */
export const thresholdDependentBatchNorm1d = factory<ThresholdArgs>('ThresholdDependentBatchNorm1d')
/** `[N, T, H, W, C]`. */
export const thresholdDependentBatchNorm2d = factory<ThresholdArgs>('ThresholdDependentBatchNorm2d')
/** `[N, T, D, H, W, C]`. */
export const thresholdDependentBatchNorm3d = factory<ThresholdArgs>('ThresholdDependentBatchNorm3d')
/** `[N, T, C]` or `[N, T, L, C]`, with a known T. */
export const temporalEffectiveBatchNorm1d = factory<Omit<NormArgs, 'stepMode'>>(
  'TemporalEffectiveBatchNorm1d',
)
/** `[N, T, H, W, C]`, with a known T. */
export const temporalEffectiveBatchNorm2d = factory<Omit<NormArgs, 'stepMode'>>(
  'TemporalEffectiveBatchNorm2d',
)
/** `[N, T, D, H, W, C]`, with a known T. */
export const temporalEffectiveBatchNorm3d = factory<Omit<NormArgs, 'stepMode'>>(
  'TemporalEffectiveBatchNorm3d',
)
/** `[N, T, C]` or `[N, T, L, C]`, with a known T. */
export const batchNormThroughTime1d = factory<Omit<NormArgs, 'stepMode'>>('BatchNormThroughTime1d')
/** `[N, T, H, W, C]`, with a known T. */
export const batchNormThroughTime2d = factory<Omit<NormArgs, 'stepMode'>>('BatchNormThroughTime2d')
/** `[N, T, D, H, W, C]`, with a known T. */
export const batchNormThroughTime3d = factory<Omit<NormArgs, 'stepMode'>>('BatchNormThroughTime3d')
/** `[N, T, H, W, C]`, with known H, W and C. */
export const neuNorm = factory<NeuNormArgs>('NeuNorm')
/** Integrate-and-fire neurons for `[N, T, …]`. */
export const ifNode = factory<Omit<NeuronArgs, 'tau' | 'decayInput'>>('IFNode')
/** Leaky integrate-and-fire neurons for `[N, T, …]`. */
export const lifNode = factory<NeuronArgs>('LIFNode')
