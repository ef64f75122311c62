// Every layer in both directions over shapes and dtypes, checked first, then timed beside a copy and the peers.

import type { Device, DType } from 'spikenorm'
import { LABELS, type LayerName, passBytes, unsuited } from '../cases/layers.js'
import { bytesOf, type Shape, shapesOf } from '../cases/shapes.js'
import type { Context } from '../context.js'
import { type Check, check } from '../measure/check.js'
import { COPY, CopyTeam } from '../measure/copy-team.js'
import { CopyOnCuda, LAUNCHES, type Launch, NativeOnCuda } from '../measure/cuda.js'
import { NativeOnCpu, OURS } from '../measure/native.js'
import { alternate, type Contestant, SETTLE_MS, type Timings } from '../measure/rounds.js'
import { type Cache, setCount } from '../measure/sets.js'
import { gigabytesPerSecond, type Timing } from '../measure/statistics.js'
import { preparePeer } from '../peers/contestant.js'
import { Progress } from '../report/progress.js'
import type { LayerRow, PeerCell } from '../report/results.js'

/** Rounds of a contestant in a row where its buffers are to stay in the cache. */
const HOT_ROUNDS = 9

/** One contest: everything but the layer and direction of a row. */
interface Case {
  device: Device
  shape: Shape
  dtype: DType
  cache: Cache
  launch: Launch | 'call'
}

/** `take` is given the rows of each case when it is done. Returns how many results were checked. */
export async function runLayers(context: Context, take: (rows: LayerRow[]) => void): Promise<number> {
  const cases = casesOf(context)
  const { layers } = context.options
  const progress = new Progress('layers', cases.length * layers.length)
  const checks = new Map<string, Check>()
  const team = context.options.checkOnly ? undefined : new CopyTeam(context.options.threads)
  try {
    for (const given of cases) {
      const ofCase: LayerRow[] = []
      for (const layer of layers) {
        const what = `${LABELS[layer]} ${given.shape.name} ${given.dtype} on ${given.device}, ${given.cache}`
        if (unsuited(layer, given.shape) || context.isOver(what)) continue
        progress.next(what)
        ofCase.push(...(await measure(context, given, layer, checkOnce(checks, given, layer), team)))
        // Ctrl-C is heard between measurements only: they run on this thread.
        await new Promise(setImmediate)
      }
      progress.stop()
      if (ofCase.length > 0) take(ofCase)
    }
  } finally {
    progress.stop()
    await team?.dispose()
  }
  return checks.size
}

function casesOf({ options, devices }: Context): Case[] {
  return devices.flatMap((device) => {
    const onCpu = device === 'cpu'
    const caches = options.caches ?? (onCpu ? (['cold'] as const) : (['cold', 'hot'] as const))
    const launches = onCpu ? (['call'] as const) : options.quick ? (['graph'] as const) : LAUNCHES
    const contests = options.dtypes.flatMap((dtype) =>
      caches.flatMap((cache) =>
        launches
          // Launching one by one says what the host costs, which the cache does not change.
          .filter((launch) => launch !== 'eager' || cache === caches[0])
          .map((launch) => ({ dtype, cache, launch })),
      ),
    )
    const shapes = options.shapes ?? shapesOf(device, options.quick)
    return shapes.flatMap((shape) => contests.map((contest) => ({ device, shape, ...contest })))
  })
}

function checkOnce(checks: Map<string, Check>, { device, shape, dtype }: Case, layer: LayerName): Check {
  const key = [device, shape.name, dtype, layer].join(' ')
  const checked = checks.get(key) ?? check(layer, shape, { device, dtype })
  checks.set(key, checked)
  return checked
}

async function measure(
  context: Context,
  given: Case,
  layer: LayerName,
  checked: Check,
  team: CopyTeam | undefined,
): Promise<LayerRow[]> {
  if (!team) return []
  const { device, shape, dtype, cache, launch } = given
  const { options, peer } = context
  const U = bytesOf(shape.dims, dtype)
  const sets = setCount(cache, device, U)
  const contestants: Contestant[] = []
  const absent = new Map<string, string>()
  const notes = new Map<string, string>()
  let timings: Map<string, Timings>
  try {
    if (launch === 'call') {
      contestants.push(new NativeOnCpu(layer, shape, { dtype, device }, sets))
      team.allocate(U, sets)
    } else {
      contestants.push(new NativeOnCuda(launch, layer, shape, { dtype, device }, sets))
      contestants.push(new CopyOnCuda(launch, shape, { dtype, device }, sets))
    }
    for (const name of peer ? context.peersOn(device) : []) {
      const request = {
        layer,
        shape,
        dtype,
        device,
        threads: options.threads,
        sets,
        launch: launchOf(launch),
      }
      const prepared = await preparePeer(peer as NonNullable<typeof peer>, name, request)
      if ('absent' in prepared) absent.set(name, prepared.absent)
      else {
        contestants.push(prepared)
        if (prepared.note) notes.set(name, prepared.note)
      }
    }
    timings =
      launch === 'call'
        ? await alternate([...contestants, team], options, { rounds: cache === 'hot' ? HOT_ROUNDS : 1 })
        : await alternate(contestants, options, { settle: SETTLE_MS.cuda })
  } finally {
    if (launch === 'call') team.release()
    for (const contestant of contestants) await contestant.dispose()
  }
  return options.directions.map((direction): LayerRow => {
    const timeOf = (name: string) => timings.get(name)?.[direction]
    const time = timeOf(OURS) as Timing
    const copyTime = timings.get(COPY)?.forward as Timing
    const bytes = passBytes(layer, direction, U, shape.dims[2] as number)
    const speed = gigabytesPerSecond(bytes, time.median)
    // A copy of U bytes reads and writes them.
    const copySpeed = gigabytesPerSecond(2 * U, copyTime.median)
    const peers: Record<string, PeerCell> = {}
    for (const name of context.peersOn(device)) {
      const theirs = timeOf(name)
      const note = notes.get(name)
      peers[name] = theirs
        ? { time: theirs, speedup: theirs.median / time.median, ...(note && { note }) }
        : { absent: absent.get(name) ?? 'no Python with PyTorch' }
    }
    return {
      ...{ layer, direction, shape: shape.name, dtype, device, cache, launch, threads: options.threads },
      ...{ check: checked, time, bytes, gigabytesPerSecond: speed },
      copy: { time: copyTime, gigabytesPerSecond: copySpeed },
      percentOfCopy: (100 * speed) / copySpeed,
      peers,
    }
  })
}

const launchOf = (launch: Launch | 'call'): Launch => (launch === 'call' ? 'eager' : launch)
