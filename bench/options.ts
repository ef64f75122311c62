// The command line: what can be asked for, what is asked for when nothing is said, and what a wrong value is told.

import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import type { Device, DType } from 'spikenorm'
import { DIRECTIONS, type Direction, LAYERS, type LayerName } from './cases/layers.js'
import { parseShape, type Shape } from './cases/shapes.js'
import { CACHES, type Cache } from './measure/sets.js'
import { COMMAND, IS_PACKAGED, MANUAL } from './paths.js'
import { PEERS, type PeerName } from './peers/peer.js'

export const SUITES = ['layers', 'napi', 'scaling', 'memory', 'training'] as const
export type SuiteName = (typeof SUITES)[number]

export const DTYPES = ['float64', 'float32', 'float16', 'bfloat16'] as const satisfies DType[]

export interface Options {
  suites: SuiteName[]
  layers: LayerName[]
  /** undefined: those that belong to the device */
  shapes: Shape[] | undefined
  dtypes: DType[]
  /** undefined: each that is present */
  devices: Device[] | undefined
  directions: Direction[]
  /** undefined: cold on the CPU, both on CUDA */
  caches: Cache[] | undefined
  /** 'usual': those that make sense on a device */
  peers: PeerName[] | 'usual' | 'none'
  python: string | undefined
  threads: number
  repeats: number
  seconds: number
  /** Stops before the case that would begin after this many minutes. */
  minutes: number
  quick: boolean
  checkOnly: boolean
  json: string | undefined
  plot: string | undefined
  compare: string | undefined
  readme: string | undefined
}

/** A value the user gave that cannot be used; the message says what to do instead. */
export class OptionError extends Error {}

const README_HELP = IS_PACKAGED
  ? ''
  : `  --readme <json>      measures nothing: writes the README's table and plot from
                       a result file
`

export const HELP = `Measures the layers of spikenorm, beside memory copies and beside PyTorch and
SpikingJelly.

Usage: ${COMMAND} [options]

What is measured
  --suite <names>      ${SUITES.join(', ')} or all
                       (default: layers)
                       layers    every layer, direction, shape and dtype
                       napi      small tensors, one step a call: cost of a call
                       scaling   threads 1 to 8, T 1 to 32, batch 1 to 512
                       memory    bytes of a training step
                       training  seconds per epoch of the demo's net
  --layer <names>      ${LAYERS.join(', ')}
  --direction <names>  ${DIRECTIONS.join(', ')}
  --shape <shape>      T,N,C,L or T,N,C,HxW or T,N,C,DxHxW; may be given often
  --dtype <names>      ${DTYPES.join(', ')}
  --device <names>     cpu, cuda, cuda:<n>           (default: all there are)
  --cache <names>      ${CACHES.join(', ')}: buffers that outgrow the last-level cache, or
                       one that stays in it (default: cold on the CPU, both on
                       CUDA)
Several names are separated by commas; without an option, all are measured.

Peers
  --peers <names>      torch: PyTorch and SpikingJelly as they are used on the
                       device; none; or some of ${PEERS.slice(0, 3).join(', ')},
                       ${PEERS.slice(3).join(', ')}         (default: none)
  --python <path>      a Python that has them        (default: python3;
                       see ${MANUAL})

How
  --threads <n>        CPU threads of both sides     (default: all, here ${availableParallelism()})
  --repeats <n>        samples of each cell          (default: 50)
  --seconds <s>        time for each cell, if less   (default: 2)
  --minutes <m>        starts nothing new after this many minutes and says what
                       was not measured
  --quick              small shapes and few samples: under a minute
  --check-only         only compares results with float64; measures nothing

Output
  --json <file>        every number, with date, machine, versions and commit
  --plot <file.svg>    a plot of the layer suite
  --compare <old.json> ratios of this run to an earlier result
${README_HELP}  --help               this text

Examples:
  ${COMMAND} --quick
  ${COMMAND} --layer tebn --peers torch --python .venv/bin/python
  ${COMMAND} --json new.json --compare ${IS_PACKAGED ? 'old.json' : 'bench/results/cpu-2026-11-28.json'}
`

export function parseOptions(argv: string[]): Options | 'help' {
  const given = readArguments(argv)
  if (given.help) return 'help'
  if (given.readme !== undefined && IS_PACKAGED)
    throw new OptionError('--readme is for the repository: a package has no README to write to.')
  const quick = given.quick ?? false
  return {
    suites: given.suite === 'all' ? [...SUITES] : names('suite', given.suite, SUITES, ['layers']),
    layers: names('layer', given.layer, LAYERS),
    shapes: given.shape?.map(shape),
    dtypes: names('dtype', given.dtype, DTYPES, quick ? ['float32', 'bfloat16'] : DTYPES),
    devices: given.device?.split(',').map(device),
    directions: names('direction', given.direction, DIRECTIONS),
    caches: given.cache === undefined ? undefined : names('cache', given.cache, CACHES),
    peers: peers(given.peers),
    python: given.python,
    threads: number('threads', given.threads, availableParallelism(), { low: 1, high: 1024, whole: true }),
    repeats: number('repeats', given.repeats, quick ? 10 : 50, { low: 1, high: 1e6, whole: true }),
    seconds: number('seconds', given.seconds, quick ? 0.1 : 2, { low: 0.01, high: 3600 }),
    minutes: number('minutes', given.minutes, Number.POSITIVE_INFINITY, { low: 0.01, high: 1e5 }),
    quick,
    checkOnly: given['check-only'] ?? false,
    json: given.json,
    plot: given.plot,
    compare: given.compare,
    readme: given.readme,
  }
}

function readArguments(argv: string[]) {
  const text = { type: 'string' } as const
  const flag = { type: 'boolean' } as const
  try {
    return parseArgs({
      args: argv,
      options: {
        suite: text,
        layer: text,
        direction: text,
        shape: { ...text, multiple: true },
        dtype: text,
        device: text,
        cache: text,
        peers: text,
        python: text,
        threads: text,
        repeats: text,
        seconds: text,
        minutes: text,
        quick: flag,
        'check-only': flag,
        json: text,
        plot: text,
        compare: text,
        readme: text,
        help: { ...flag, short: 'h' },
      },
    }).values
  } catch (error) {
    // Node's own messages run to several lines of advice about '--'; the first sentence is the fact.
    throw new OptionError(`${(error as Error).message.split(/\.\s|\n/)[0]}.`)
  }
}

/** In the order of `known`, each once, whatever order they were asked for in. */
function names<Name extends string>(
  option: string,
  given: string | undefined,
  known: readonly Name[],
  fallback: readonly Name[] = known,
): Name[] {
  if (given === undefined) return [...fallback]
  const asked = given
    .split(',')
    .map((name) => name.trim().toLowerCase())
    .filter((name) => name !== '')
  const unknown = asked.find((name) => !known.some((one) => one === name))
  if (unknown !== undefined)
    throw new OptionError(`--${option}: '${unknown}' is not one of ${known.join(', ')}.`)
  if (asked.length === 0)
    throw new OptionError(`--${option} needs a name: one or more of ${known.join(', ')}.`)
  return known.filter((name) => asked.includes(name))
}

function peers(given: string | undefined): Options['peers'] {
  if (given === undefined || given === 'none') return 'none'
  return given === 'torch' ? 'usual' : names('peers', given, PEERS)
}

function shape(given: string): Shape {
  try {
    return parseShape(given)
  } catch (error) {
    throw new OptionError(`--shape: ${(error as Error).message}.`)
  }
}

function device(given: string): Device {
  const name = given.trim()
  if (!/^(cpu|cuda(:\d+)?)$/.test(name))
    throw new OptionError(`--device takes cpu, cuda or cuda:<n>, not '${name}'.`)
  return name as Device
}

function number(
  option: string,
  given: string | undefined,
  fallback: number,
  { low, high, whole = false }: { low: number; high: number; whole?: boolean },
): number {
  if (given === undefined) return fallback
  const value = Number(given)
  const isFit = given.trim() !== '' && value >= low && value <= high && (!whole || Number.isInteger(value))
  if (!isFit) {
    throw new OptionError(
      `--${option} takes a ${whole ? 'whole ' : ''}number from ${low} to ${high}, not '${given}'.`,
    )
  }
  return value
}
