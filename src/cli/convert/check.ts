/** Do the keys and shapes fit a layer? */
import { printable } from '../../format-value.js'
import type { Module, SpikenormError, Tensor } from '../../index.js'
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

/** What the layer itself says, which takes what older files have too. */
function compare(layer: Module, dict: Dict) {
  const wrongShape = Object.entries(layer.stateDict()).flatMap(([key, { shape }]) => {
    const value = Object.hasOwn(dict, key) ? dict[key] : undefined
    return value === undefined || loads(layer, key, value) ? [] : [{ key, expected: shape, got: value.shape }]
  })
  const wrong = new Set(wrongShape.map(({ key }) => key))
  const rest = Object.fromEntries(Object.entries(dict).filter(([key]) => !wrong.has(key)))
  const { missingKeys, unexpectedKeys: unexpected } = layer.loadStateDict(rest, { strict: false })
  const missing = missingKeys.filter((key) => !wrong.has(key))
  const fits = missing.length + unexpected.length + wrongShape.length === 0
  return { fits, missing, unexpected, wrongShape }
}

/** Whether a layer takes a value of this shape. */
function loads(layer: Module, key: string, value: Tensor): boolean {
  try {
    layer.loadStateDict({ [key]: value }, { strict: false })
    return true
  } catch (thrown) {
    if ((thrown as SpikenormError).code === 'ERR_STATE_DICT') return false
    throw thrown
  }
}

export function checkText({ prefix, class: name, args, ...result }: CheckResult): string {
  const given = Object.entries(args).map(([key, value]) => `${key}: ${JSON.stringify(value)}`)
  const what = `${name}(${given.join(', ')})`
  if (result.fits) return `${placeOf(prefix)}: fits ${what}`
  const problems = [
    ...result.missing.map((key) => `missing     ${printable(prefix + key)}`),
    ...result.unexpected.map((key) => `unexpected  ${printable(prefix + key)}`),
    ...result.wrongShape.map(
      ({ key, expected, got }) =>
        `wrong shape ${printable(prefix + key)}: expected ${shapeText(expected)}, got ${shapeText(got)}`,
    ),
  ]
  return `${placeOf(prefix)}: does not fit ${what}\n${problems.map((line) => `  ${line}`).join('\n')}`
}
