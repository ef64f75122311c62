// The table at the end of a run, and its numbers as the report prints them too.

import { type Column, renderTable } from '../../bench/report/table.js'
import { LABELS, lastOf, type RunResult } from './results.js'

export const COLUMNS: Column<RunResult>[] = [
  { title: 'norm', numeric: false, key: true, value: (run) => LABELS[run.norm] },
  { title: 'test accuracy', numeric: true, value: (run) => `${run.testAccuracy.toFixed(1)} %` },
  { title: 'best epoch', numeric: true, value: (run) => `${run.bestEpoch} of ${run.epochs.length}` },
  { title: 'first-layer gradient', numeric: true, value: (run) => scientific(run.start.gradientNorm) },
  {
    title: 'last-layer firing',
    numeric: true,
    value: (run) => `${(100 * lastOf(run.probe.firingRates)).toFixed(1)} %`,
  },
  { title: 'parameters', numeric: true, value: (run) => run.parameters.toLocaleString('en') },
  { title: 'seconds', numeric: true, value: (run) => run.seconds.toFixed(1) },
]

export const tableOf = (runs: readonly RunResult[]): string => renderTable(COLUMNS, runs)

function scientific(value: number): string {
  return value === 0 ? '0' : value.toExponential(1)
}
