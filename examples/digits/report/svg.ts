// The little that the plots need of SVG: scales, ticks, paths and axes. Colours and type are the style sheet's.

export type Scale = (value: number) => number

export interface Frame {
  left: number
  right: number
  top: number
  bottom: number
}

export function linear(from: readonly [number, number], to: readonly [number, number]): Scale {
  const slope = from[1] === from[0] ? 0 : (to[1] - to[0]) / (from[1] - from[0])
  return (value) => to[0] + (value - from[0]) * slope
}

/** Round numbers that cover low … high, about `count` of them. */
export function ticks(low: number, high: number, count: number): number[] {
  const rough = (high - low) / count
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = ([1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999) ?? 10) * power
  const first = Math.ceil(low / step - 1e-9)
  const last = Math.floor(high / step + 1e-9)
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)))
}

/** Values for a logarithmic axis from low to high: 1, 2 and 5 of each power of ten, or 1 alone where that is too many. */
export function logTicks(low: number, high: number): number[] {
  const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))]
  const steps = last - first > 4 ? [1] : [1, 2, 5]
  return Array.from({ length: last - first + 1 }, (_, i) => 10 ** (first + i))
    .flatMap((power) => steps.map((step) => Number((step * power).toPrecision(3))))
    .filter((value) => value >= low && value <= high)
}

/** Whole numbers 1 … last, thinned to at most `count`, the last one always among them. */
export function countTicks(last: number, count: number): number[] {
  const every = Math.ceil(last / count)
  return Array.from({ length: last }, (_, i) => i + 1).filter((value) => (last - value) % every === 0)
}

export function escapeText(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`)
}

export function svg(width: number, height: number, description: string, body: string[]): string {
  const label = escapeText(description)
  return `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${label}">${body.join('\n')}</svg>`
}

export function text(x: number, y: number, content: string, classes = '', extra = ''): string {
  return `<text x="${short(x)}" y="${short(y)}" class="${classes}" ${extra}>${escapeText(content)}</text>`
}

export function line(x1: number, y1: number, x2: number, y2: number, classes: string): string {
  return `<line x1="${short(x1)}" y1="${short(y1)}" x2="${short(x2)}" y2="${short(y2)}" class="${classes}"/>`
}

export function path(points: readonly (readonly [number, number])[]): string {
  return points.map(([x, y], i) => `${i ? 'L' : 'M'}${short(x)} ${short(y)}`).join('')
}

/** Horizontal grid lines with their values on the left. */
export function yAxis(frame: Frame, values: number[], y: Scale, label: (value: number) => string): string[] {
  return values.flatMap((value) => [
    line(frame.left, y(value), frame.right, y(value), 'grid'),
    text(frame.left - 8, y(value) + 4, label(value), 'tick end'),
  ])
}

/** The base line with its values below and the name of the axis under them. */
export function xAxis(
  frame: Frame,
  values: number[],
  x: Scale,
  label: (value: number) => string,
  name: string,
): string[] {
  return [
    line(frame.left, frame.bottom, frame.right, frame.bottom, 'axis'),
    ...values.map((value) => line(x(value), frame.bottom, x(value), frame.bottom + 4, 'axis')),
    ...values.map((value) => text(x(value), frame.bottom + 17, label(value), 'tick middle')),
    text((frame.left + frame.right) / 2, frame.bottom + 35, name, 'name middle'),
  ]
}

/** Two decimals: a tenth of a pixel matters to nobody, and the file stays small. */
export function short(value: number): string {
  return String(Math.round(value * 100) / 100)
}
