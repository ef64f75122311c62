// A plot of the layer suite as plain SVG: a panel for each device, dtype and cache, bars of GB/s for each layer and
// direction, and beside ours those of the peers.

import { LABELS } from '../cases/layers.js'
import { OURS } from '../measure/native.js'
import { copySpeed } from './copy.js'
import type { LayerRow } from './results.js'
import { short } from './table.js'

const WIDTH = 860
const LABEL_WIDTH = 190
const BAR = 9
const GAP = 8
const PANEL_TITLE = 30
const AXIS = 26
const COLOURS = ['#0b6e99', '#d98324', '#7a5195', '#6b8e23', '#b5446e', '#888888']

interface Bar {
  name: string
  speed: number
}

interface Group {
  label: string
  bars: Bar[]
}

export interface Panel {
  title: string
  /** absent where no copy was measured at the speed of memory */
  copySpeed: number | null
  groups: Group[]
}

export function panelsOf(rows: readonly LayerRow[]): Panel[] {
  const panels = new Map<string, LayerRow[]>()
  for (const row of rows) {
    if (row.launch === 'eager') continue
    const key = `${row.device}, ${row.shape} ${row.dtype}, ${row.cache}`
    panels.set(key, [...(panels.get(key) ?? []), row])
  }
  return [...panels].map(([title, members]) => ({
    title,
    copySpeed: copySpeed(members),
    groups: members.map((row) => ({ label: `${LABELS[row.layer]} ${row.direction}`, bars: barsOf(row) })),
  }))
}

function barsOf(row: LayerRow): Bar[] {
  const peers = Object.entries(row.peers).flatMap(([name, cell]) =>
    'absent' in cell ? [] : [{ name, speed: row.gigabytesPerSecond / cell.speedup }],
  )
  return [{ name: OURS, speed: row.gigabytesPerSecond }, ...peers]
}

export function renderPlot(rows: readonly LayerRow[], caption: string): string {
  const panels = panelsOf(rows)
  const names = [
    ...new Set(panels.flatMap(({ groups }) => groups.flatMap(({ bars }) => bars.map(({ name }) => name)))),
  ]
  let y = 56
  const body: string[] = []
  for (const panel of panels) {
    body.push(renderPanel(panel, names, y))
    y += heightOf(panel)
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y}" font-family="system-ui, sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#fff"/>
<text x="12" y="20" font-weight="600">GB/s by formula; the line is a copy of the same bytes</text>
<text x="12" y="38" fill="#555">${escaped(caption)}</text>
${legend(names)}
${body.join('\n')}
</svg>
`
}

const groupHeight = ({ bars }: Group) => bars.length * BAR + GAP

function heightOf({ groups }: Panel): number {
  return PANEL_TITLE + groups.reduce((sum, group) => sum + groupHeight(group), 0) + AXIS
}

function renderPanel({ title, copySpeed: copy, groups }: Panel, names: string[], top: number): string {
  const fastest = Math.max(copy ?? 0, ...groups.flatMap(({ bars }) => bars.map(({ speed }) => speed)))
  const x = (speed: number) => LABEL_WIDTH + (speed / (fastest * 1.08)) * (WIDTH - LABEL_WIDTH - 16)
  const lines = [`<text x="12" y="${top + 18}" font-weight="600">${escaped(title)}</text>`]
  let y = top + PANEL_TITLE
  for (const group of groups) {
    const middle = y + (group.bars.length * BAR) / 2 + 4
    lines.push(`<text x="${LABEL_WIDTH - 8}" y="${middle}" text-anchor="end">${escaped(group.label)}</text>`)
    for (const { name, speed } of group.bars) {
      const fill = COLOURS[names.indexOf(name) % COLOURS.length]
      const width = Math.max(0, x(speed) - LABEL_WIDTH).toFixed(1)
      const tip = `<title>${escaped(`${name}: ${short(speed)} GB/s`)}</title>`
      lines.push(
        `<rect x="${LABEL_WIDTH}" y="${y}" width="${width}" height="${BAR - 1}" fill="${fill}">${tip}</rect>`,
      )
      y += BAR
    }
    y += GAP
  }
  if (copy !== null) {
    const at = x(copy).toFixed(1)
    lines.push(
      `<line x1="${at}" x2="${at}" y1="${top + PANEL_TITLE}" y2="${y}" stroke="#333" stroke-dasharray="4 3"/>`,
      `<text x="${at}" y="${y + 12}" text-anchor="end" fill="#333">copy ${short(copy)} GB/s</text>`,
    )
  }
  return lines.join('\n')
}

function legend(names: string[]): string {
  return names
    .map((name, i) => {
      const x = WIDTH - 130 * (names.length - i)
      const fill = COLOURS[i % COLOURS.length]
      return `<rect x="${x}" y="12" width="10" height="10" fill="${fill}"/><text x="${x + 15}" y="21">${escaped(name)}</text>`
    })
    .join('\n')
}

function escaped(text: string): string {
  return text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`)
}
