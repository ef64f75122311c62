// Line charts: one line per network over epochs or layers, with a marker and dashes of its own beside the colour.

import type { NormName } from '../options.js'
import { LABELS } from '../results.js'
import {
  countTicks,
  escapeText,
  type Frame,
  linear,
  logTicks,
  path,
  type Scale,
  short,
  svg,
  text,
  ticks,
  xAxis,
  yAxis,
} from './svg.js'

export interface Line {
  norm: NormName
  /** at x = 1, 2, … */
  values: number[]
}

export interface LineChart {
  description: string
  x: string
  lines: Line[]
  /** Least value that is told apart from zero: the y axis is then logarithmic; where absent, it goes from zero. */
  least?: number
  format: (value: number) => string
}

const WIDTH = 520
const HEIGHT = 300
const FRAME: Frame = { left: 52, right: WIDTH - 14, top: 14, bottom: HEIGHT - 46 }

export function lineChart({ description, x: xName, lines, least, format }: LineChart): string {
  const count = Math.max(...lines.map(({ values }) => values.length))
  const all = lines.flatMap(({ values }) => values)
  // A single point belongs in the middle, not on the axis.
  const x = linear(count === 1 ? [0, 2] : [1, count], [FRAME.left + 12, FRAME.right - 12])
  // Side by side, so that equal values do not hide each other.
  const apart = Math.min(4, (x(2) - x(1)) / (2 * lines.length))
  const ends = [FRAME.bottom, FRAME.top] as const
  const { y, marks } = least === undefined ? fromZero(all, ends) : logarithmic(all, least, ends)
  return svg(WIDTH, HEIGHT, description, [
    ...yAxis(FRAME, marks, y, format),
    ...xAxis(FRAME, countTicks(count, 12), x, String, xName),
    ...lines.map(({ norm, values }, line) => {
      const aside = apart * (line - (lines.length - 1) / 2)
      const points = values.map((value, i) => [x(i + 1) + aside, y(value)] as const)
      const marks = points.map(([px, py], i) => {
        const title = escapeText(`${LABELS[norm]}, ${xName} ${i + 1}: ${format(values[i] as number)}`)
        return `<g><title>${title}</title>${marker(norm, px, py)}</g>`
      })
      return `<g class="series ${norm}"><path class="stroke" d="${path(points)}"/>${marks.join('')}</g>`
    }),
  ])
}

/** A scale and the values that are written beside it. */
interface Axis {
  y: Scale
  marks: number[]
}

function fromZero(values: readonly number[], ends: readonly [number, number]): Axis {
  const high = Math.max(...values) * 1.05 || 1
  return { y: linear([0, high], ends), marks: ticks(0, high, 5) }
}

/** From just below the smallest value to just above the largest, so that lines near zero lie apart. */
function logarithmic(values: readonly number[], least: number, ends: readonly [number, number]): Axis {
  const shown = values.map((value) => Math.max(value, least))
  const [low, high] = [Math.min(...shown) / 1.15, Math.max(...shown) * 1.15]
  const scale = linear([Math.log10(low), Math.log10(high)], ends)
  return { y: (value) => scale(Math.log10(Math.max(value, least))), marks: logTicks(low, high) }
}

/** Colour, dashes and marker of every line, once for all charts. */
export function legend(norms: readonly NormName[]): string {
  const items = norms.map((norm) => {
    const sample = `<line x1="0" y1="7" x2="44" y2="7" class="stroke"/>${marker(norm, 22, 7)}`
    return `<li class="series ${norm}"><svg viewBox="0 0 44 14" aria-hidden="true">${sample}</svg>${LABELS[norm]}</li>`
  })
  return `<ul class="legend">${items.join('')}</ul>`
}

/** A shape for each, so that the lines can be told apart without their colours; tdBN's is open, because at v_th = 1 it
 * lies on top of BatchNorm's. */
function marker(norm: NormName, x: number, y: number): string {
  if (norm === 'none') return `<circle class="mark hollow" cx="${short(x)}" cy="${short(y)}" r="4"/>`
  if (norm === 'batchnorm') return `<circle class="mark" cx="${short(x)}" cy="${short(y)}" r="4"/>`
  const corners = CORNERS[norm].map(([dx, dy]) => [x + dx, y + dy] as const)
  return `<path class="mark${norm === 'tdbn' ? ' open' : ''}" d="${path(corners)}Z"/>`
}

const CORNERS: Record<Exclude<NormName, 'none' | 'batchnorm'>, [number, number][]> = {
  // biome-ignore-start format: one shape, one line
  tdbn: [
    [-5, -5],
    [5, -5],
    [5, 5],
    [-5, 5],
  ],
  tebn: [
    [0, -5.5],
    [5.5, 0],
    [0, 5.5],
    [-5.5, 0],
  ],
  bntt: [
    [0, -5],
    [5, 4],
    [-5, 4],
  ],
  neunorm: [
    [0, 5],
    [5, -4],
    [-5, -4],
  ],
  // biome-ignore-end format: one shape, one line
}

/** Horizontal bars on a logarithmic axis, for values that differ by powers of ten. */
export function logBars(
  description: string,
  name: string,
  bars: { norm: NormName; value: number }[],
): string {
  const rowHeight = 34
  const frame: Frame = { left: 172, right: WIDTH - 70, top: 8, bottom: 8 + rowHeight * bars.length }
  const exponents = bars.filter(({ value }) => value > 0).map(({ value }) => Math.log10(value))
  const low = Math.floor(Math.min(-1, ...exponents)) - 1
  const high = Math.max(0, Math.ceil(Math.max(...exponents, 0)))
  const x = linear([low, high], [frame.left, frame.right])
  const marks = ticks(low, high, 6).filter(Number.isInteger)
  return svg(WIDTH, frame.bottom + 46, description, [
    ...marks.map(
      (at) =>
        `<line x1="${short(x(at))}" y1="${frame.top}" x2="${short(x(at))}" y2="${frame.bottom}" class="grid"/>`,
    ),
    ...xAxis(frame, marks, x, powerOfTen, name),
    ...bars.flatMap(({ norm, value }, i) => {
      const middle = frame.top + rowHeight * (i + 0.5)
      const end = value > 0 ? x(Math.log10(value)) : frame.left
      const size = `width="${short(end - frame.left)}" height="${rowHeight - 16}"`
      return [
        text(frame.left - 10, middle + 4, LABELS[norm], 'label end'),
        `<rect x="${frame.left}" y="${short(middle - rowHeight / 2 + 8)}" ${size} rx="2" class="bar ${norm}"/>`,
        text(end + 8, middle + 4, value > 0 ? value.toExponential(2) : '0', 'tick'),
      ]
    }),
  ])
}

function powerOfTen(exponent: number): string {
  const raised = [...String(exponent)].map((char) => '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'['-0123456789'.indexOf(char)]).join('')
  return `10${raised}`
}
