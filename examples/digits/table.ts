// The table at the end of a run, and its numbers as the report prints them too.

import { LABELS, lastOf, type RunResult } from './results.js'

export interface Column {
  title: string
  numeric: boolean
  value: (run: RunResult) => string
}

export const COLUMNS: Column[] = [
  { title: 'norm', numeric: false, value: (run) => LABELS[run.norm] },
  { title: 'test accuracy', numeric: true, value: (run) => `${run.testAccuracy.toFixed(1)} %` },
  {
    title: 'best epoch',
    numeric: true,
    value: (run) => `${run.bestEpoch}${run.complete ? '' : ' (stopped)'}`,
  },
  { title: 'first-layer gradient', numeric: true, value: (run) => scientific(run.start.gradientNorm) },
  {
    title: 'last-layer firing',
    numeric: true,
    value: (run) => `${(100 * lastOf(run.probe.firingRates)).toFixed(1)} %`,
  },
  { title: 'parameters', numeric: true, value: (run) => run.parameters.toLocaleString('en') },
  { title: 'seconds', numeric: true, value: (run) => run.seconds.toFixed(1) },
]

export function renderTable(runs: RunResult[]): string {
  const rows = [
    COLUMNS.map((column) => column.title),
    ...runs.map((run) => COLUMNS.map((column) => column.value(run))),
  ]
  const widths = COLUMNS.map((_, i) => Math.max(...rows.map((row) => (row[i] as string).length)))
  const lines = rows.map((row) =>
    row
      .map((cell, i) =>
        COLUMNS[i]?.numeric ? cell.padStart(widths[i] as number) : cell.padEnd(widths[i] as number),
      )
      .join('   ')
      .trimEnd(),
  )
  const rule = widths.map((width) => '─'.repeat(width)).join('   ')
  return [lines[0], rule, ...lines.slice(1)].join('\n')
}

function scientific(value: number): string {
  return value === 0 ? '0' : value.toExponential(1)
}
