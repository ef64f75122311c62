// The tables of the suites, as they are printed.

import { LABELS } from '../cases/layers.js'
import { quantile, type Timing } from '../measure/statistics.js'
import { copySpeed, doubts, percentText } from './copy.js'
import type { LayerRow, MemoryRow, NapiRow, PeerCell, ScalingRow, TrainingRow } from './results.js'
import { bytes, type Column, renderTable, short } from './table.js'

/** Median and half the distance between the quartiles. */
const timeText = (time: Timing) => `${short(time.median)} ±${short((time.q3 - time.q1) / 2)}`
const speedupText = (cell: PeerCell | undefined) =>
  cell === undefined ? '' : 'absent' in cell ? '–' : `${short(cell.speedup)}×`

/** Peers in the order of their first appearance. */
const peersOf = (rows: readonly { peers: Record<string, unknown> }[]) => [
  ...new Set(rows.flatMap(({ peers }) => Object.keys(peers))),
]

/** Why cells are empty, once for each reason. */
function reasons(rows: readonly { peers: Record<string, unknown> }[]): string {
  const lines = rows.flatMap(({ peers }) =>
    Object.entries(peers).flatMap(([name, cell]) => {
      const { absent, note } = cell as { absent?: string; note?: string }
      return [absent && `  – ${name}: ${absent}`, note && `  ${name}: ${note}`].filter(Boolean)
    }),
  )
  return [...new Set(lines)].join('\n')
}

export function layerTable(rows: LayerRow[]): string {
  const { device, threads, shape, dtype, cache, launch } = rows[0] as LayerRow
  const where =
    device === 'cpu' ? `${threads} CPU thread${threads === 1 ? '' : 's'}` : `${device} (${launch})`
  const columns: Column<LayerRow>[] = [
    { title: 'layer', numeric: false, key: true, value: ({ layer }) => LABELS[layer] },
    { title: 'direction', numeric: false, key: true, value: ({ direction }) => direction },
    { title: 'µs', numeric: true, value: ({ time }) => timeText(time) },
    { title: 'bytes', numeric: true, value: (row) => bytes(row.bytes) },
    { title: 'GB/s', numeric: true, value: (row) => short(row.gigabytesPerSecond) },
    { title: '% of copy', numeric: true, value: percentText },
    ...peersOf(rows).map((name) => ({
      title: `vs ${name}`,
      numeric: true,
      value: (row: LayerRow) => speedupText(row.peers[name]),
    })),
  ]
  const speed = copySpeed(rows)
  const copy = speed === null ? 'no copy to compare with' : `copy ${short(speed)} GB/s`
  const title = `${shape} ${dtype}, ${cache}, ${where}; ${copy}`
  return [title, renderTable(columns, rows), ...doubts(rows), reasons(rows)].filter(Boolean).join('\n')
}

export function napiTable(rows: NapiRow[]): string {
  const columns: Column<NapiRow>[] = [
    { title: 'call', numeric: false, key: true, value: ({ what }) => what },
    { title: 'direction', numeric: false, key: true, value: ({ direction }) => direction ?? '' },
    { title: 'µs per call', numeric: true, value: ({ time }) => timeText(time) },
    {
      title: 'of one channel',
      numeric: true,
      value: ({ oneChannel }) => (oneChannel ? timeText(oneChannel) : ''),
    },
    {
      title: 'the call itself',
      numeric: true,
      value: ({ time, oneChannel }) =>
        oneChannel ? `${Math.min(100, (100 * oneChannel.median) / time.median).toFixed(0)} %` : '',
    },
    ...peersOf(rows).map((name) => ({
      title: `vs ${name}`,
      numeric: true,
      value: (row: NapiRow) => speedupText(row.peers[name]),
    })),
  ]
  return [
    '[1, 64, 4, 4] float32, one time step a call, training mode',
    renderTable(columns, rows),
    reasons(rows),
  ]
    .filter(Boolean)
    .join('\n')
}

export function scalingTable(rows: ScalingRow[]): string {
  const columns: Column<ScalingRow>[] = [
    {
      title: 'what',
      numeric: false,
      key: true,
      value: ({ axis, value, beyondCores }) => `${axis} ${value}${beyondCores ? ' *' : ''}`,
    },
    { title: 'layer', numeric: false, key: true, value: ({ layer }) => LABELS[layer] },
    { title: 'direction', numeric: false, key: true, value: ({ direction }) => direction },
    { title: 'shape', numeric: false, value: ({ shape }) => shape },
    { title: 'µs', numeric: true, value: ({ time }) => timeText(time) },
    { title: 'ps/byte', numeric: true, value: (row) => short(row.picosecondsPerByte) },
    { title: 'GB/s', numeric: true, value: (row) => short(row.gigabytesPerSecond) },
  ]
  const tables = [...new Set(rows.map(({ device }) => device))].map((device) => {
    const ofDevice = rows.filter((row) => row.device === device)
    return `${device}\n${renderTable(columns, ofDevice)}`
  })
  const note = rows.some(({ beyondCores }) => beyondCores) ? ['  * more threads than cores'] : []
  return [tables.join('\n\n'), ...note].join('\n')
}

export function memoryTable(rows: MemoryRow[]): string {
  const inTensors =
    (of: 'saved' | 'peak') => (row: MemoryRow, cell: MemoryRow['peers'][string] | MemoryRow) =>
      'absent' in cell ? '–' : `${short(cell[of] / row.tensorBytes)}`
  const columns: Column<MemoryRow>[] = [
    { title: 'layer', numeric: false, key: true, value: ({ layer }) => LABELS[layer] },
    { title: 'shape', numeric: false, key: true, value: ({ shape }) => shape },
    { title: 'dtype', numeric: false, key: true, value: ({ dtype }) => dtype },
    { title: 'one tensor', numeric: true, value: (row) => bytes(row.tensorBytes) },
    { title: 'saved', numeric: true, value: (row) => inTensors('saved')(row, row) },
    { title: 'peak', numeric: true, value: (row) => inTensors('peak')(row, row) },
    ...peersOf(rows).flatMap((name) =>
      (['saved', 'peak'] as const).map((of) => ({
        title: `${of}, ${name}`,
        numeric: true,
        value: (row: MemoryRow) => (row.peers[name] ? inTensors(of)(row, row.peers[name]) : ''),
      })),
    ),
  ]
  const title = `In tensors of that shape: what is kept for backward (saved), and the most above
input and dy during a step (peak)`
  return [title, renderTable(columns, rows), reasons(rows)].filter(Boolean).join('\n')
}

export function trainingTable(rows: TrainingRow[]): string {
  const middle = (values: number[]) =>
    values.length > 0
      ? short(
          quantile(
            values.toSorted((a, b) => a - b),
            0.5,
          ),
        )
      : ''
  const columns: Column<TrainingRow>[] = [
    { title: 'norm', numeric: false, key: true, value: ({ norm }) => norm },
    { title: 'device', numeric: false, key: true, value: ({ device }) => device },
    { title: 's/epoch', numeric: true, value: ({ seconds }) => middle(seconds) },
    { title: 'last loss', numeric: true, value: ({ loss }) => (loss.at(-1) ?? Number.NaN).toFixed(4) },
    ...peersOf(rows).flatMap((name) => [
      {
        title: `s/epoch, ${name}`,
        numeric: true,
        value: ({ peers: { [name]: cell } }: TrainingRow) =>
          cell && !('absent' in cell) ? middle(cell.seconds) : '–',
      },
      {
        title: `last loss, ${name}`,
        numeric: true,
        value: ({ peers: { [name]: cell } }: TrainingRow) =>
          cell && !('absent' in cell) ? (cell.loss.at(-1) ?? Number.NaN).toFixed(4) : '–',
      },
      {
        title: `vs ${name}`,
        numeric: true,
        value: ({ peers: { [name]: cell } }: TrainingRow) =>
          cell && !('absent' in cell) ? `${short(cell.speedup)}×` : '–',
      },
    ]),
  ]
  return [renderTable(columns, rows), reasons(rows)].filter(Boolean).join('\n')
}
