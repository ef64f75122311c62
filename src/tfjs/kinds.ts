/** What the layers for tf.layers are made of: how arguments and an input's shape become a module. */
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
  TemporalEffectiveBatchNorm1d,
  TemporalEffectiveBatchNorm2d,
  TemporalEffectiveBatchNorm3d,
  ThresholdDependentBatchNorm1d,
  ThresholdDependentBatchNorm2d,
  ThresholdDependentBatchNorm3d,
} from '../index.js'
import {
  type AnyArgs,
  IF_OPTIONS,
  type Kind,
  LIF_OPTIONS,
  NEU_NORM_OPTIONS,
  NORM_OPTIONS,
  optionsOf,
} from './layer-arguments.js'

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
