/** Folding a norm into the convolution or linear layer before it, by the keys of both. */

import { nearest } from '../../did-you-mean.js'
import { fold as foldLayers, type NormLayer, type nn, type Tensor } from '../../index.js'
import { Failure, UsageError } from '../errors.js'
import { type Arguments, build, type FoundLayer, findLayers, onlyOwn, placeOf } from './layers.js'
import type { Dict } from './rename.js'
import { select, someOf } from './rename.js'

/** Where the keys of the two begin, and what the file does not tell of the norm. */
export interface Folding {
  conv: string
  norm: string
  eps: number
}

const NAMES = ['conv', 'norm', 'eps']

/** Reads `conv=<prefix>,norm=<prefix>`, and `eps=<number>` where the norm's is not the usual one. */
export function parseFolding(text: string): Folding {
  const given = new Map<string, string>()
  for (const part of text.split(',')) {
    const at = part.indexOf('=')
    const [name, value] = [part.slice(0, Math.max(at, 0)).trim(), part.slice(at + 1).trim()]
    if (!NAMES.includes(name) || value === '') {
      const near = nearest(name, NAMES)
      throw new UsageError(
        `--fold takes conv=<prefix>,norm=<prefix>,eps=<number>, not '${part}'.${near ? ` Did you mean ${near}?` : ''}`,
      )
    }
    given.set(name, value)
  }
  const prefix = (name: string) => {
    const value = given.get(name)
    if (value === undefined) throw new UsageError(`--fold '${text}': ${name}= is missing.`)
    return value.endsWith('.') ? value : `${value}.`
  }
  const eps = Number(given.get('eps') ?? 1e-5)
  if (!(eps >= 0 && eps < 1))
    throw new UsageError(`--fold: eps takes a number from 0 to 1, not '${given.get('eps')}'.`)
  return { conv: prefix('conv'), norm: prefix('norm'), eps }
}

/**
 * The dict with the folded weights in the place of the layer's, and without the norm's keys. Computed in float64 and rounded
 * once to the dtype of the layer's weight. For TEBN and BNTT the layer's keys become those of T layers, `0.weight`, … .
 */
export function foldDict(dict: Dict, { conv, norm, eps }: Folding): Dict {
  const layers = findLayers(dict)
  const layer = find(layers, conv, ({ classes }) => classes.includes('Conv2d') || classes.includes('Linear'))
  if (layer === undefined) throw absent('conv', conv, 'Conv2d or Linear', layers, ['Conv2d', 'Linear'])
  const isConvolution = layer.classes.includes('Conv2d')
  const dimension = isConvolution ? '2d' : '1d'
  const found = find(layers, norm, ({ classes }) => classes.some((name) => name.includes('BatchNorm')))
  const name = found?.classes.find((each) => each.endsWith(dimension))
  if (found === undefined || name === undefined)
    throw absent('norm', norm, 'batch norm', layers, [
      `BatchNorm${dimension}`,
      `BatchNormThroughTime${dimension}`,
      `TemporalEffectiveBatchNorm${dimension}`,
    ])

  const keys = onlyOwn(select(dict, norm))
  expectStatistics(keys, norm)
  const isAffine = Object.keys(keys).some((key) => /(^|\.)weight$/.test(key))
  const mode = { stepMode: 'm', dtype: 'float64' }
  const weighted = loaded(layer.classes[0] as string, { ...layer.args, ...mode }, onlyOwn(select(dict, conv)))
  const normal = loaded(name, { ...found.args, affine: isAffine, eps, ...mode }, keys)
  const folded = foldLayers(weighted as nn.Conv2d | nn.Linear, normal as NormLayer)
  const dtype = (dict[`${conv}weight`] as Tensor).dtype
  const made = Object.entries(folded.stateDict()).map(
    ([key, value]) => [conv + key, value.to(dtype)] as const,
  )
  const [weights, statistics] = [own(dict, conv), own(dict, norm)]
  // In the place of the first of the layer's keys.
  const entries = Object.entries(dict).flatMap(([key, value]) => {
    if (key === weights[0]) return made
    return weights.includes(key) || statistics.includes(key) ? [] : [[key, value] as const]
  })
  return Object.fromEntries(entries)
}

/** Without running statistics there is nothing to fold. */
function expectStatistics(keys: Dict, norm: string): void {
  if (Object.keys(keys).some((key) => /(^|\.)running_mean$/.test(key))) return
  throw new Failure(
    `--fold: norm=${placeOf(norm)} has no running statistics (track_running_stats=False): it uses those of each batch, which are not known beforehand`,
  )
}

/** The keys of one layer. */
function own(dict: Dict, prefix: string): string[] {
  return Object.keys(onlyOwn(select(dict, prefix))).map((key) => prefix + key)
}

function find(layers: FoundLayer[], prefix: string, fits: (layer: FoundLayer) => boolean) {
  return layers.find((layer) => layer.prefix === prefix && fits(layer))
}

function absent(
  option: string,
  prefix: string,
  what: string,
  layers: FoundLayer[],
  classes: string[],
): Failure {
  const others = layers.filter((layer) => layer.classes.some((name) => classes.includes(name)))
  const names = others
    .map((layer) => layer.prefix)
    .filter((each) => each !== '')
    .map(placeOf)
  return new Failure(
    `--fold: ${option}=${placeOf(prefix)} has not the keys of a ${what}; there are ${someOf(names)}`,
  )
}

/** A layer of that class with these values. */
function loaded(name: string, args: Arguments, dict: Dict) {
  const { layer } = build(name, args, {})
  layer.loadStateDict(dict)
  return layer
}
