/** Do the keys and shapes fit a layer? */
import type { Module } from '../../index.js'
import { shapeText } from '../text.js'
import { type Arguments, build, classesText, findLayers, onlyOwn, placeOf } from './layers.js'
import { type Dict, select } from './rename.js'

export interface CheckResult {
  /** Keys of the layer begin with it. */
  prefix: string
  class: string
  args: Arguments
  fits: boolean
  missing: string[]
  unexpected: string[]
  wrongShape: { key: string; expected: readonly number[]; got: readonly number[] }[]
}

/** Against one class: all the keys. */
export function checkClass(dict: Dict, name: string, args: Arguments): CheckResult {
  const found = findLayers(dict).find(({ prefix }) => prefix === '')
  const { layer, args: all } = build(name, args, found?.classes.includes(name) ? found.args : {})
  return { prefix: '', class: name, args: all, ...compare(layer, dict) }
}

/** Against what the keys look like: the keys of each layer that is recognised by itself. */
export function checkAll(dict: Dict): CheckResult[] {
  return findLayers(dict).map(({ prefix, classes, args }) => {
    const own = onlyOwn(select(dict, prefix))
    const { layer, args: all } = build(classes[0] as string, {}, args)
    return { prefix, class: classesText(classes), args: all, ...compare(layer, own) }
  })
}

function compare(layer: Module, dict: Dict) {
  const expected = layer.stateDict()
  const missing = Object.keys(expected).filter((key) => !Object.hasOwn(dict, key))
  const unexpected = Object.keys(dict).filter((key) => !Object.hasOwn(expected, key))
  const wrongShape = Object.entries(expected).flatMap(([key, { shape }]) => {
    const got = dict[key]?.shape
    return got === undefined || got.join() === shape.join() ? [] : [{ key, expected: shape, got }]
  })
  const fits = missing.length + unexpected.length + wrongShape.length === 0
  // The layer has the last word.
  if (fits) layer.loadStateDict(dict)
  return { fits, missing, unexpected, wrongShape }
}

export function checkText({ prefix, class: name, args, ...result }: CheckResult): string {
  const given = Object.entries(args).map(([key, value]) => `${key}: ${JSON.stringify(value)}`)
  const what = `${name}(${given.join(', ')})`
  if (result.fits) return `${placeOf(prefix)}: fits ${what}`
  const problems = [
    ...result.missing.map((key) => `missing     ${prefix}${key}`),
    ...result.unexpected.map((key) => `unexpected  ${prefix}${key}`),
    ...result.wrongShape.map(
      ({ key, expected, got }) =>
        `wrong shape ${prefix}${key}: expected ${shapeText(expected)}, got ${shapeText(got)}`,
    ),
  ]
  return `${placeOf(prefix)}: does not fit ${what}\n${problems.map((line) => `  ${line}`).join('\n')}`
}
