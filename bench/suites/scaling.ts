// What a byte costs as threads, time steps or batch grow: flat is good.

import { availableParallelism } from 'node:os'
import { getNumThreads, setNumThreads } from 'spikenorm'
import { LABELS, type LayerName, passBytes } from '../cases/layers.js'
import { bytesOf, parseShape } from '../cases/shapes.js'
import type { Context } from '../context.js'
import { check } from '../measure/check.js'
import { NativeOnCuda } from '../measure/cuda.js'
import { NativeOnCpu, OURS } from '../measure/native.js'
import { alternate } from '../measure/rounds.js'
import { setCount } from '../measure/sets.js'
import { gigabytesPerSecond, type Timing } from '../measure/statistics.js'
import { Progress } from '../report/progress.js'
import type { ScalingRow } from '../report/results.js'

const VALUES = {
  threads: [1, 2, 4, 8],
  T: [1, 2, 4, 8, 16, 32],
  batch: [1, 2, 8, 32, 128, 512],
} as const
const QUICK = { threads: [1, 2], T: [1, 4], batch: [1, 8] } as const
type Axis = keyof typeof VALUES

const DTYPE = 'float32'
/** The other extents stay at those of a CIFAR stage, small enough for a batch of 512. */
const shapeAt = (axis: Axis, value: number) =>
  parseShape(`${axis === 'T' ? value : 4},${axis === 'batch' ? value : 32},64,16x16`)

export async function runScaling(context: Context): Promise<ScalingRow[]> {
  const { options } = context
  const values = options.quick ? QUICK : VALUES
  const jobs = context.devices.flatMap((device) =>
    (Object.keys(VALUES) as Axis[])
      .filter((axis) => axis !== 'threads' || device === 'cpu')
      .flatMap((axis) =>
        values[axis].flatMap((value) => options.layers.map((layer) => ({ device, axis, value, layer }))),
      ),
  )
  const progress = new Progress('scaling', jobs.length)
  const rows: ScalingRow[] = []
  const before = getNumThreads()
  try {
    for (const { device, axis, value, layer } of jobs) {
      const shape = shapeAt(axis, value)
      const what = `${LABELS[layer]} ${axis} = ${value} on ${device}`
      if (context.isOver(what)) continue
      progress.next(what)
      const threads = axis === 'threads' ? value : options.threads
      setNumThreads(threads)
      check(layer, shape, { dtype: DTYPE, device })
      if (options.checkOnly) continue
      const sets = setCount('cold', device, bytesOf(shape.dims, DTYPE))
      const given = { dtype: DTYPE, device } as const
      const ours =
        device === 'cpu'
          ? new NativeOnCpu(layer, shape, given, sets)
          : new NativeOnCuda('graph', layer, shape, given, sets)
      try {
        const timings = (await alternate([ours], options)).get(OURS)
        for (const direction of options.directions) {
          const time = timings?.[direction] as Timing
          rows.push(rowOf({ device, axis, value, layer, direction, threads, time }))
        }
      } finally {
        ours.dispose()
      }
    }
  } finally {
    progress.stop()
    setNumThreads(before)
  }
  return rows
}

type Measured = Pick<ScalingRow, 'device' | 'axis' | 'value' | 'direction' | 'threads' | 'time'> & {
  layer: LayerName
}

function rowOf(measured: Measured): ScalingRow {
  const shape = shapeAt(measured.axis, measured.value)
  const { layer, direction, time, threads, device } = measured
  const bytes = passBytes(layer, direction, bytesOf(shape.dims, DTYPE), shape.dims[2] as number)
  return {
    ...measured,
    beyondCores: device === 'cpu' && threads > availableParallelism(),
    shape: shape.name,
    dtype: DTYPE,
    bytes,
    gigabytesPerSecond: gigabytesPerSecond(bytes, time.median),
    picosecondsPerByte: (time.median * 1e6) / bytes,
  }
}
