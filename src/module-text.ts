/** How modules, optimisers and schedules describe themselves, as PyTorch's `repr`. */
import { formatValue, nameOfClass } from './format-value.js'

/** More lines than anyone reads. */
const MOST_LINES = 400

/** What the text is made of; a module. */
export interface Described {
  /** Name and module of what is directly below. */
  namedChildren(): [string, Described][]
}

/**
 * `Linear(inFeatures=3, outFeatures=2, bias=true)`; a module with others below it has a line for each of them, indented as in
 * PyTorch.
 */
export function describeModule(module: Described): string {
  const lines = linesOf(module, new Set())
  const rest = lines.length - MOST_LINES
  return rest > 0 ? [...lines.slice(0, MOST_LINES), `… ${rest} more lines`].join('\n') : lines.join('\n')
}

function linesOf(module: Described, above: Set<Described>): string[] {
  const children = module.namedChildren()
  const isLeaf = children.length === 0
  const head = describeValues(module, isLeaf ? ['momentum', 'stepMode'].filter((key) => key in module) : [])
  if (isLeaf || above.has(module)) return [head]
  above.add(module)
  const body = children.flatMap(([name, child]) => {
    const [first = '', ...more] = linesOf(child, above)
    return [`  (${name}): ${first}`, ...more.map((line) => `  ${line}`)]
  })
  above.delete(module)
  return [`${head.endsWith('()') ? head.slice(0, -1) : `${head.slice(0, -1)},`}`, ...body, ')']
}

/** The class and the plain values that an object shows: its own, and those of `more`. */
export function describeValues(value: object, more: readonly string[] = []): string {
  const shown = new Map<string, unknown>()
  for (const key of [...Object.keys(value), ...more]) shown.set(key, (value as Record<string, unknown>)[key])
  const texts = [...shown].flatMap(([key, one]) => {
    const isPlain = one === null || ['number', 'boolean', 'string'].includes(typeof one)
    const isPair = Array.isArray(one) && one.length <= 3 && one.every((item) => typeof item === 'number')
    return isPlain || isPair ? [`${key}=${formatValue(one)}`] : []
  })
  return `${nameOfClass(value)}(${texts.join(', ')})`
}
