// Tables as text.

export interface Column<Row> {
  title: string
  /** Numbers stand on the right. */
  numeric: boolean
  value: (row: Row) => string
}

export function renderTable<Row>(columns: Column<Row>[], rows: readonly Row[]): string {
  const cells = [
    columns.map(({ title }) => title),
    ...rows.map((row) => columns.map(({ value }) => value(row))),
  ]
  const widths = columns.map((_, i) => Math.max(...cells.map((line) => (line[i] as string).length)))
  const lines = cells.map((line) =>
    line
      .map((cell, i) =>
        columns[i]?.numeric ? cell.padStart(widths[i] as number) : cell.padEnd(widths[i] as number),
      )
      .join('  ')
      .trimEnd(),
  )
  return [lines[0], widths.map((width) => '─'.repeat(width)).join('  '), ...lines.slice(1)].join('\n')
}

/** The same as Markdown, padded as formatters want it. */
export function renderMarkdown<Row>(columns: Column<Row>[], rows: readonly Row[]): string {
  const cells = [
    columns.map(({ title }) => title),
    ...rows.map((row) => columns.map(({ value }) => value(row))),
  ]
  const widths = columns.map((_, i) => Math.max(3, ...cells.map((line) => (line[i] as string).length)))
  const line = (values: string[]) =>
    `| ${values.map((value, i) => value.padEnd(widths[i] as number)).join(' | ')} |`
  const rule = line(widths.map((width) => '-'.repeat(width)))
  return [line(cells[0] as string[]), rule, ...cells.slice(1).map(line)].join('\n')
}

/** Three digits that matter. */
export function short(value: number): string {
  if (!Number.isFinite(value)) return String(value)
  const size = Math.abs(value)
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3)
}

export function bytes(value: number): string {
  const units = ['B', 'kB', 'MB', 'GB']
  const unit = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(1, value)) / 3)))
  return `${short(value / 1000 ** unit)} ${units[unit]}`
}
