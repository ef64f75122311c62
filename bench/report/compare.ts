// Two result files side by side.

import { LABELS } from '../cases/layers.js'
import { keyOf, type LayerRow, type ResultFile } from './results.js'
import { type Column, renderTable, short } from './table.js'

export interface Comparison {
  row: LayerRow
  old: LayerRow
  /** new time over old: below 1 is faster */
  ratio: number
  /** whether the quartiles of both overlap, so that the difference may be noise */
  overlap: boolean
}

export function compareRows(now: readonly LayerRow[], before: readonly LayerRow[]): Comparison[] {
  const known = new Map(before.map((row) => [keyOf(row), row]))
  return now.flatMap((row) => {
    const old = known.get(keyOf(row))
    if (!old) return []
    const overlap = row.time.q1 <= old.time.q3 && old.time.q1 <= row.time.q3
    return [{ row, old, ratio: row.time.median / old.time.median, overlap }]
  })
}

export const geometricMean = (values: readonly number[]) =>
  Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length)

export function comparisonText(now: ResultFile, before: ResultFile): string {
  const compared = compareRows(now.suites.layers ?? [], before.suites.layers ?? [])
  if (compared.length === 0)
    return 'No measurement of this run is in the old result, so there is nothing to compare.'
  const columns: Column<Comparison>[] = [
    { title: 'layer', numeric: false, key: true, value: ({ row }) => LABELS[row.layer] },
    { title: 'direction', numeric: false, key: true, value: ({ row }) => row.direction },
    { title: 'shape', numeric: false, key: true, value: ({ row }) => row.shape },
    { title: 'dtype', numeric: false, key: true, value: ({ row }) => row.dtype },
    { title: 'old µs', numeric: true, value: ({ old }) => short(old.time.median) },
    { title: 'new µs', numeric: true, value: ({ row }) => short(row.time.median) },
    {
      title: 'new/old',
      numeric: true,
      value: ({ ratio, overlap }) => `${short(ratio)}${overlap ? ' ~' : '  '}`,
    },
  ]
  const placeOf = ({ row }: Comparison) => `${row.device}, ${row.cache}`
  const tables = [...new Set(compared.map(placeOf))].map((place) => {
    const there = compared.filter((each) => placeOf(each) === place)
    return `${place}\n${renderTable(columns, there)}`
  })
  const mean = geometricMean(compared.map(({ ratio }) => ratio))
  const machines =
    now.machine.cpu === before.machine.cpu && now.machine.cores === before.machine.cores
      ? ''
      : `\nThe old result is of another machine: ${before.machine.cpu},\n${before.machine.cores} cores.`
  return `Compared with ${before.commit} of ${before.date}
(~: the quartiles overlap):${machines}
${tables.join('\n\n')}
New over old, geometric mean of ${compared.length}: ${short(mean)}`
}
