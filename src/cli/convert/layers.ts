/** Which layer may have written these keys, and how to build one of a class for them. */

import { didYouMean } from '../../did-you-mean.js'
import { printable } from '../../format-value.js'
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
  TemporalEffectiveBatchNorm1d,
  TemporalEffectiveBatchNorm2d,
  TemporalEffectiveBatchNorm3d,
  ThresholdDependentBatchNorm1d,
  ThresholdDependentBatchNorm2d,
  ThresholdDependentBatchNorm3d,
} from '../../index.js'
import { UsageError } from '../errors.js'
import type { Dict } from './rename.js'

export type Arguments = Record<string, unknown>

interface KnownClass {
  create: new (...args: never[]) => Module
  /** Names of the arguments before the options. */
  positional: readonly string[]
  options: readonly string[]
}

const NORM_OPTIONS = ['eps', 'momentum', 'affine', 'trackRunningStats', 'stepMode', 'dtype']
const KIT_OPTIONS = ['bias', 'stepMode', 'dtype']

const norms = (positional: readonly string[], ...classes: KnownClass['create'][]): KnownClass[] =>
  classes.map((create) => ({ create, positional, options: NORM_OPTIONS }))

const CLASSES = new Map(
  [
    ...norms(['numFeatures'], BatchNorm1d, BatchNorm2d, BatchNorm3d),
    ...norms(
      ['alpha', 'vTh', 'numFeatures'],
      ThresholdDependentBatchNorm1d,
      ThresholdDependentBatchNorm2d,
      ThresholdDependentBatchNorm3d,
    ),
    ...norms(
      ['T', 'numFeatures'],
      TemporalEffectiveBatchNorm1d,
      TemporalEffectiveBatchNorm2d,
      TemporalEffectiveBatchNorm3d,
    ),
    ...norms(['T', 'numFeatures'], BatchNormThroughTime1d, BatchNormThroughTime2d, BatchNormThroughTime3d),
    {
      create: NeuNorm,
      positional: ['inChannels', 'height', 'width'],
      options: ['k', 'sharedAcrossChannels', 'stepMode', 'dtype'],
    },
    {
      create: nn.Conv2d,
      positional: ['inChannels', 'outChannels', 'kernelSize'],
      options: ['stride', 'padding', ...KIT_OPTIONS],
    },
    { create: nn.Linear, positional: ['inFeatures', 'outFeatures'], options: KIT_OPTIONS },
  ].map((known: KnownClass) => [known.create.name, known] as const),
)

export const CLASS_NAMES = [...CLASSES.keys()]

/** Keys of one layer: `bn1.weight`, `bn1.running_mean` and so on are those below `bn1.`. */
export interface FoundLayer {
  prefix: string
  /** The classes with such keys; one and two dimensions look the same, and so do BatchNorm and tdBN. */
  classes: string[]
  /** What the keys' shapes say of the constructor's arguments. */
  args: Arguments
}

/** Where a layer's keys end and their names begin. */
const LAST_NAME =
  /^(?<prefix>(?:.*?\.)??)(?:bn_list\.(?<step>\d+)\.)?(?<name>weight|bias|running_mean|running_var|num_batches_tracked|scale|w)$/

/** The keys of the layer at the root, and none of layers below it. */
export function onlyOwn(dict: Dict): Dict {
  const isOwn = (key: string) => !key.includes('.') || /^bn_list\.\d+\.[^.]+$/.test(key)
  return Object.fromEntries(Object.entries(dict).filter(([key]) => isOwn(key)))
}

/** Time steps that no net has. */
const MOST_STEPS = 10_000

/** Every layer of {@link CLASS_NAMES} that the keys tell of, in their order. */
export function findLayers(dict: Dict): FoundLayer[] {
  const prefixes = new Map<string, number[]>()
  for (const key of Object.keys(dict)) {
    const { prefix, step } = LAST_NAME.exec(key)?.groups ?? {}
    if (prefix === undefined) continue
    const steps = prefixes.get(prefix) ?? []
    if (step !== undefined) steps.push(Number(step))
    prefixes.set(prefix, steps)
  }
  return [...prefixes].flatMap(([prefix, steps]) => guess(dict, prefix, steps) ?? [])
}

/** The layer below a prefix; `steps` are the time steps that keys of BNTT have. */
function guess(dict: Dict, prefix: string, steps: readonly number[]): FoundLayer | undefined {
  const shapeOf = (name: string) => dict[prefix + name]?.shape
  const found = (names: readonly string[], args: Arguments) => ({ prefix, classes: [...names], args })
  const dimensions = (name: string) => ['1d', '2d', '3d'].map((dimension) => name + dimension)
  if (steps.length > 0) {
    const last = steps.reduce((most, step) => Math.max(most, step))
    if (last >= MOST_STEPS) return undefined
    const step = `bn_list.${steps[0]}.`
    const features =
      shapeOf(`${step}running_mean`) ?? shapeOf(`${step}running_var`) ?? shapeOf(`${step}weight`)
    return found(dimensions('BatchNormThroughTime'), {
      T: last + 1,
      ...(features ? { numFeatures: features[0] } : {}),
    })
  }
  const [weight, bias, w] = [shapeOf('weight'), shapeOf('bias'), shapeOf('w')]
  const statistics = shapeOf('running_mean') ?? shapeOf('running_var')
  const [scale, features] = [shapeOf('scale'), statistics ?? weight ?? bias]
  if (scale?.length === 1) {
    const args = { T: scale[0], ...(features ? { numFeatures: features[0] } : {}) }
    return found(dimensions('TemporalEffectiveBatchNorm'), args)
  }
  if (statistics?.length === 1) {
    const names = [...dimensions('BatchNorm'), ...dimensions('ThresholdDependentBatchNorm')]
    return found(names, { numFeatures: statistics[0] })
  }
  if (w?.length === 3) {
    // One weight for all channels says nothing of their number.
    const args = w[0] === 1 ? { sharedAcrossChannels: true } : { inChannels: w[0] }
    return found(['NeuNorm'], { ...args, height: w[1], width: w[2] })
  }
  const withoutBias = bias ? {} : { bias: false }
  if (weight?.length === 4) {
    const kernelSize = weight[2] === weight[3] ? weight[2] : [weight[2], weight[3]]
    return found(['Conv2d'], { inChannels: weight[1], outChannels: weight[0], kernelSize, ...withoutBias })
  }
  if (weight?.length === 2)
    return found(['Linear'], { inFeatures: weight[1], outFeatures: weight[0], ...withoutBias })
  return undefined
}

/** A prefix as a layer's name. */
export function placeOf(prefix: string): string {
  return prefix === '' ? 'root' : printable(prefix.replace(/\.$/, ''))
}

/** `BatchNorm1d/2d/3d or ThresholdDependentBatchNorm1d/2d/3d`. */
export function classesText(classes: readonly string[]): string {
  const families = new Map<string, string[]>()
  for (const name of classes) {
    const [, base, dimension] = /^(.*?)([123]d)?$/.exec(name) as unknown as [string, string, string?]
    families.set(base, [...(families.get(base) ?? []), ...(dimension ? [dimension] : [])])
  }
  return [...families].map(([base, dimensions]) => base + dimensions.join('/')).join(' or ')
}

/** What a class must be built with, where neither `given` nor the keys tell: values that change no key and no shape. */
const INDIFFERENT: Arguments = { alpha: 1, vTh: 1, inChannels: 1 }

/** A layer of that class, with the arguments given and, for the rest, those that the keys tell of. */
export function build(name: string, given: Arguments, found: Arguments): { layer: Module; args: Arguments } {
  const known = CLASSES.get(name)
  if (known === undefined)
    throw new UsageError(
      `--check: unknown class ${name}.${didYouMean(name, CLASS_NAMES) || ` Known are ${CLASS_NAMES.join(', ')}.`}`,
    )
  const names = [...known.positional, ...known.options]
  for (const key of Object.keys(given)) {
    if (!names.includes(key))
      throw new UsageError(
        `--args: ${name} has no argument ${key}.${didYouMean(key, names) || ` It has ${names.join(', ')}.`}`,
      )
  }
  const all: Arguments = { ...INDIFFERENT, ...found, ...given }
  const missing = known.positional.filter((key) => all[key] === undefined)
  if (missing.length > 0) {
    throw new UsageError(
      `--check ${name}: the keys do not tell ${missing.join(' and ')}; give --args '{${missing.map((key) => `"${key}": …`).join(', ')}}'.`,
    )
  }
  const args = Object.fromEntries(names.filter((key) => all[key] !== undefined).map((key) => [key, all[key]]))
  const options = Object.fromEntries(Object.entries(args).filter(([key]) => known.options.includes(key)))
  const layer: Module = Reflect.construct(known.create, [
    ...known.positional.map((key) => args[key]),
    options,
  ])
  return { layer, args }
}
