// Tables as text.

export interface Column<Row> {
  title: string
  /** Numbers stand on the right. */
  numeric: boolean
  /** Says which row it is: repeated where a table goes on below itself. */
  key?: boolean
  value: (row: Row) => string
}

/** Columns of a terminal. */
const WIDTH = 80
const GAP = '  '

/** A column's lines: those of the title, a rule, and the values. */
interface Cells {
  key: boolean
  numeric: boolean
  width: number
  title: string[]
  values: string[]
}

/**
 * At most 80 characters wide: titles are broken into several lines where they have to be, and columns that still do not
 * fit go on in a further table below, beside the key columns once more.
 */
export function renderTable<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string {
  const unbroken = columns.map((column) => cellsOf(column, rows, false))
  if (widthOf(unbroken) <= WIDTH) return renderBlock(unbroken)
  const broken = columns.map((column) => cellsOf(column, rows, true))
  const keys = broken.filter(({ key }) => key)
  const blocks: Cells[][] = [[...keys]]
  for (const cells of broken.filter(({ key }) => !key)) {
    const block = blocks.at(-1) as Cells[]
    if (block.length === keys.length || widthOf([...block, cells]) <= WIDTH) block.push(cells)
    else blocks.push([...keys, cells])
  }
  return blocks.map(renderBlock).join('\n\n')
}

function cellsOf<Row>(column: Column<Row>, rows: readonly Row[], breaks: boolean): Cells {
  const { title, numeric, key = false } = column
  const values = rows.map(column.value)
  const widest = Math.max(0, ...values.map(({ length }) => length))
  const lines = breaks ? brokenTitle(title, widest) : [title]
  return { key, numeric, width: Math.max(widest, ...lines.map(({ length }) => length)), title: lines, values }
}

/** Words in as few lines as the values' width allows, or the longest word's. */
function brokenTitle(title: string, width: number): string[] {
  const words = title.split(' ')
  const room = Math.max(width, ...words.map(({ length }) => length))
  const lines = ['']
  for (const word of words) {
    const line = lines.at(-1) as string
    const longer = line === '' ? word : `${line} ${word}`
    if (longer.length <= room) lines[lines.length - 1] = longer
    else lines.push(word)
  }
  return lines
}

const widthOf = (cells: readonly Cells[]) =>
  cells.reduce((sum, { width }) => sum + width, 0) + GAP.length * (cells.length - 1)

function renderBlock(block: readonly Cells[]): string {
  const line = (textOf: (cells: Cells) => string) =>
    block
      .map((cells) =>
        cells.numeric ? textOf(cells).padStart(cells.width) : textOf(cells).padEnd(cells.width),
      )
      .join(GAP)
      .trimEnd()
  const height = Math.max(...block.map(({ title }) => title.length))
  // Titles stand on the rule.
  const head = Array.from({ length: height }, (_, i) =>
    line(({ title }) => title[i - height + title.length] ?? ''),
  )
  const rule = line(({ width }) => '─'.repeat(width))
  const count = block[0]?.values.length ?? 0
  const body = Array.from({ length: count }, (_, i) => line(({ values }) => values[i] as string))
  return [...head, rule, ...body].join('\n')
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
