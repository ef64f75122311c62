/** What the layers for tf.layers are made of: their arguments, and how an input's shape becomes a module. */
import type { layers } from '@tensorflow/tfjs-layers'
import {
  BatchNorm1d,
  BatchNorm2d,
  BatchNorm3d,
  BatchNormThroughTime1d,
  BatchNormThroughTime2d,
  BatchNormThroughTime3d,
  type Module,
  NeuNorm,
  nn,
  SpikenormError,
  type StepMode,
  TemporalEffectiveBatchNorm1d,
  TemporalEffectiveBatchNorm2d,
  TemporalEffectiveBatchNorm3d,
  ThresholdDependentBatchNorm1d,
  ThresholdDependentBatchNorm2d,
  ThresholdDependentBatchNorm3d,
} from '../index.js'

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

/** The extents of an input, with names for messages. */
class Extents {
  constructor(
    readonly kind: string,
    readonly shape: readonly (number | null)[],
  ) {}

  at(what: string, axis: number): number {
    const extent = this.shape.at(axis)
    if (typeof extent !== 'number') {
      throw new SpikenormError(
        'ERR_SHAPE',
        `${this.kind}: input: expected a known ${what} at axis ${axis}, got shape [${this.shape.join(', ')}]`,
      )
    }
    return extent
  }
}

/** Arguments that are options of the module, by kind of module: the others are of tf.layers or say what its input is. */
const NORM_OPTIONS = ['eps', 'momentum', 'affine', 'trackRunningStats', 'channelsLast', 'stepMode'] as const
const NEU_NORM_OPTIONS = ['k', 'sharedAcrossChannels', 'channelsLast', 'stepMode'] as const
const IF_OPTIONS = ['vThreshold', 'vReset', 'surrogate', 'detachReset', 'stepMode'] as const
const LIF_OPTIONS = ['tau', 'decayInput', ...IF_OPTIONS] as const

function optionsOf<Key extends keyof AnyArgs>(keys: readonly Key[], args: AnyArgs): Pick<AnyArgs, Key> {
  return Object.fromEntries(keys.map((key) => [key, args[key]])) as Pick<AnyArgs, Key>
}

type Make = (args: AnyArgs, extents: Extents, axes: { time: number; channel: number }) => Module

/** One maker for each class of a family. */
function family<Name extends Kind, Class>(
  classes: Record<Name, Class>,
  make: (Class: Class, ...args: Parameters<Make>) => Module,
): Record<Name, Make> {
  const entries = Object.entries<Class>(classes)
  return Object.fromEntries(
    entries.map(([name, Class]): [string, Make] => [name, (...args) => make(Class, ...args)]),
  ) as Record<Name, Make>
}

const norms = {
  ...family({ BatchNorm1d, BatchNorm2d, BatchNorm3d }, (Norm, args, extents, { channel }) => {
    return new Norm(extents.at('number of channels', channel), optionsOf(NORM_OPTIONS, args))
  }),
  ...family(
    { ThresholdDependentBatchNorm1d, ThresholdDependentBatchNorm2d, ThresholdDependentBatchNorm3d },
    (Norm, args, extents, { channel }) => {
      const channels = extents.at('number of channels', channel)
      return new Norm(args.alpha ?? 1, args.vTh ?? 1, channels, optionsOf(NORM_OPTIONS, args))
    },
  ),
  ...family(
    {
      TemporalEffectiveBatchNorm1d,
      TemporalEffectiveBatchNorm2d,
      TemporalEffectiveBatchNorm3d,
      BatchNormThroughTime1d,
      BatchNormThroughTime2d,
      BatchNormThroughTime3d,
    },
    (Norm, args, extents, { time, channel }) => {
      return new Norm(
        extents.at('number of time steps', time),
        extents.at('number of channels', channel),
        optionsOf(NORM_OPTIONS, args),
      )
    },
  ),
}

const makers: Record<Kind, Make> = {
  ...norms,
  NeuNorm(args, extents, { channel }) {
    const [height, width] = args.channelsLast ? [-3, -2] : [-2, -1]
    return new NeuNorm(
      extents.at('number of channels', channel),
      extents.at('height', height as number),
      extents.at('width', width as number),
      optionsOf(NEU_NORM_OPTIONS, args),
    )
  },
  IFNode: (args) => new nn.IFNode(optionsOf(IF_OPTIONS, args)),
  LIFNode: (args) => new nn.LIFNode(optionsOf(LIF_OPTIONS, args)),
}

/** A module of this kind for inputs of this shape, in which extents may be unknown. */
export function makeModule(kind: Kind, given: AnyArgs, shape: readonly (number | null)[]): Module {
  const args: AnyArgs = {
    ...given,
    stepMode: given.stepMode ?? 'm',
    channelsLast: given.channelsLast ?? true,
  }
  const isMulti = args.stepMode === 'm'
  const time = (given.batchFirst ?? true) ? 1 : 0
  const channel = args.channelsLast ? -1 : isMulti ? 2 : 1
  return makers[kind](args, new Extents(kind, shape), { time, channel })
}
