/** The arguments of the layers for tf.layers: what there is, by kind, and what of it is part of a layer's config. */
import type { layers } from '@tensorflow/tfjs-layers'
import { boolean, type Check, type OptionChecks, readOptions } from '../arguments.js'
import type { nn, StepMode } from '../index.js'

/** What every layer of tf.layers takes: `name`, `inputShape`, `trainable`, … */
export type LayerArgs = NonNullable<ConstructorParameters<typeof layers.Layer>[0]>

/** Arguments that all layers here share. */
export interface SequenceArgs extends LayerArgs {
  /** Whether the batch comes before time, `[N, T, …]`, as tf.layers expects of a model. Default true. */
  batchFirst?: boolean
}

/** Arguments of the batch norms, as their options in `spikenorm`. */
export interface NormArgs extends SequenceArgs {
  /** Added to the variance. Default 1e-5. */
  eps?: number
  /** Weight of the new value in the running statistics (tf.layers' own is one minus this); `null`: average. Default 0.1. */
  momentum?: number | null
  /** Whether the layer has learnable parameters. Default true. */
  affine?: boolean
  /** Whether running statistics are kept; without them predictions use the batch's. Default true. */
  trackRunningStats?: boolean
  /** Whether the channels are the last axis. Default true, as everywhere in TensorFlow.js. */
  channelsLast?: boolean
  /** `'m'` (default): the input has an axis of time. `'s'`: it has none, or the layer is one without time. */
  stepMode?: StepMode
}

/** Arguments of the three `thresholdDependentBatchNorm`s. */
export interface ThresholdArgs extends Omit<NormArgs, 'stepMode'> {
  /** Default 1. */
  alpha?: number
  /** Firing threshold of the neuron layer that follows. Default 1. */
  vTh?: number
}

/** Arguments of {@link neuNorm}. */
export interface NeuNormArgs extends SequenceArgs {
  /** Decay of the state. Default 0.9. */
  k?: number
  /** One weight for all channels. Default false. */
  sharedAcrossChannels?: boolean
  /** Whether the channels are the last axis. Default true. */
  channelsLast?: boolean
}

/** Arguments of {@link ifNode} and {@link lifNode}, as their options in `spikenorm`. */
export interface NeuronArgs extends SequenceArgs, Omit<nn.LIFNodeOptions, 'stepMode'> {}

/** All arguments of all kinds. */
export interface AnyArgs extends ThresholdArgs, NeuNormArgs, Omit<NeuronArgs, 'k'> {
  stepMode?: StepMode
}

/** The modules there is a layer for. */
export type Kind =
  | `${'BatchNorm' | 'ThresholdDependentBatchNorm' | 'TemporalEffectiveBatchNorm' | 'BatchNormThroughTime'}${1 | 2 | 3}d`
  | 'NeuNorm'
  | 'IFNode'
  | 'LIFNode'

/** Arguments that are part of a layer's config, beside those of every layer: all of them, or this does not compile. */
const OWN_ARGS: Record<Exclude<keyof AnyArgs, keyof LayerArgs>, true> = {
  batchFirst: true,
  eps: true,
  momentum: true,
  affine: true,
  trackRunningStats: true,
  channelsLast: true,
  stepMode: true,
  alpha: true,
  vTh: true,
  k: true,
  sharedAcrossChannels: true,
  tau: true,
  decayInput: true,
  vThreshold: true,
  vReset: true,
  surrogate: true,
  detachReset: true,
}

/** The arguments that say what the module is like, those not given left out. */
export function configOf(args: AnyArgs): Record<string, string | number | boolean | null> {
  const keys = Object.keys(OWN_ARGS) as (keyof typeof OWN_ARGS)[]
  return Object.fromEntries(
    keys.filter((key) => args[key] !== undefined).map((key) => [key, args[key] ?? null]),
  )
}

/** Arguments that are options of the module, by family: the others are of tf.layers or say what its input is. */
export const NORM_OPTIONS = [
  'eps',
  'momentum',
  'affine',
  'trackRunningStats',
  'channelsLast',
  'stepMode',
] as const
export const NEU_NORM_OPTIONS = ['k', 'sharedAcrossChannels', 'channelsLast', 'stepMode'] as const
export const IF_OPTIONS = ['vThreshold', 'vReset', 'surrogate', 'detachReset', 'stepMode'] as const
export const LIF_OPTIONS = ['tau', 'decayInput', ...IF_OPTIONS] as const

/** Those of `args` that are named. */
export function optionsOf<Key extends keyof AnyArgs>(
  keys: readonly Key[],
  args: AnyArgs,
): Pick<AnyArgs, Key> {
  return Object.fromEntries(keys.map((key) => [key, args[key]])) as Pick<AnyArgs, Key>
}

function ownOptions(kind: Kind): readonly (keyof typeof OWN_ARGS)[] {
  if (kind === 'NeuNorm') return NEU_NORM_OPTIONS
  if (kind === 'IFNode') return IF_OPTIONS
  if (kind === 'LIFNode') return LIF_OPTIONS
  return kind.startsWith('ThresholdDependent') ? ['alpha', 'vTh', ...NORM_OPTIONS] : NORM_OPTIONS
}

/** For what tf.layers or the module checks itself. */
const anything: Check<never> = (_where, _name, value) => value as never

const LAYER_ARGS: OptionChecks<LayerArgs> = {
  inputShape: anything,
  batchInputShape: anything,
  batchSize: anything,
  dtype: anything,
  name: anything,
  trainable: boolean,
  weights: anything,
  inputDType: anything,
}

/** The arguments of a layer, checked where tf.layers would not; `given` are those of its factory. */
export function readLayerArgs(kind: Kind, args: unknown, given: ArrayLike<unknown>): AnyArgs {
  const own = Object.fromEntries(ownOptions(kind).map((key) => [key, anything]))
  const options = {
    ...LAYER_ARGS,
    ...own,
    batchFirst: boolean,
    channelsLast: boolean,
  } as OptionChecks<AnyArgs>
  // As users call it: batchNorm2d makes a BatchNorm2d.
  const call = kind.replace(/^[A-Z]+?(?=[A-Z]?[a-z])/, (start) => start.toLowerCase())
  return readOptions<AnyArgs>(kind, args, given, { call, leading: [], options })
}
