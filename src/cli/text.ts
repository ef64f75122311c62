/** How things look on a terminal: colours where they are wanted, tables, numbers, sizes. */

/** https://no-color.org: no colour where NO_COLOR is set to anything; else only on a terminal. */
const isColoured = process.stdout.isTTY === true && !process.env.NO_COLOR && process.env.TERM !== 'dumb'

function style(open: number, close: number) {
  return (text: string) => (isColoured ? `\x1b[${open}m${text}\x1b[${close}m` : text)
}

export const bold = style(1, 22)
export const dim = style(2, 22)
export const red = style(31, 39)
export const green = style(32, 39)
export const yellow = style(33, 39)

/** JSON that prints as it is: what a terminal obeys and JSON leaves as it is is escaped too. */
export function json(value: unknown): string {
  return JSON.stringify(value, null, 2).replace(/(?!\n)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (character) =>
    [...Array(character.length).keys()]
      .map((at) => `\\u${character.charCodeAt(at).toString(16).padStart(4, '0')}`)
      .join(''),
  )
}

/** Columns side by side, the first row being their heads; those named in `right` end at the same place. */
export function table(rows: readonly (readonly string[])[], right: readonly number[] = []): string {
  const widths: number[] = []
  for (const row of rows) {
    row.forEach((cell, i) => {
      widths[i] = Math.max(widths[i] ?? 0, cell.length)
    })
  }
  const line = (row: readonly string[]) =>
    row
      .map((cell, i) => (right.includes(i) ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0)))
      .join('  ')
      .trimEnd()
  return rows.map((row, i) => (i === 0 ? bold(line(row)) : line(row))).join('\n')
}

/** Four significant digits, without zeros at the end. */
export function short(value: number): string {
  if (!Number.isFinite(value)) return String(value)
  const text = value.toPrecision(4)
  return text.includes('e')
    ? text.replace(/\.?0+e/, 'e')
    : text.replace(/(\.\d*?)0+$/, '$1').replace(/\.$/, '')
}

export function bytes(count: number): string {
  const units = ['B', 'KB', 'MB', 'GB', 'TB']
  let [value, unit] = [count, 0]
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit++
  }
  return `${value < 10 && unit > 0 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`
}

export function shapeText(shape: readonly number[]): string {
  return `[${shape.join(', ')}]`
}
