// The command line: what can be asked for, what is asked for when nothing is said, and what a wrong value is told.

import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import type { Device } from 'spikenorm'

export const NORMS = ['none', 'batchnorm', 'tdbn', 'tebn', 'bntt', 'neunorm'] as const
export type NormName = (typeof NORMS)[number]

export interface Options {
  norms: NormName[]
  depth: number
  steps: number
  vth: number
  epochs: number
  seed: number
  batch: number
  threads: number
  device: Device
  out: string
  quick: boolean
}

/** A value the user gave that cannot be used; the message says what to do instead. */
export class OptionError extends Error {}

const DEFAULTS = {
  depth: 8,
  steps: 4,
  vth: 1,
  epochs: 8,
  seed: 0,
  batch: 16,
  device: 'cpu',
  out: 'demo-output',
}
const QUICK = { ...DEFAULTS, steps: 2, epochs: 3 }

export const HELP = `Trains deep spiking networks on 8x8 handwritten digits, once per normalisation
layer, and compares them.

Usage: npm run demo -- [options]

  --norm <names>    ${NORMS.join(', ')},
                    or several with commas in between   (default: all six)
  --depth <n>       conv + LIF layers, 1 to 32          (default: ${DEFAULTS.depth})
  --steps <n>       time steps T, 1 to 32               (default: ${DEFAULTS.steps})
  --vth <v>         firing threshold, above 0           (default: ${DEFAULTS.vth})
  --epochs <n>      passes over the images, 1 to 500    (default: ${DEFAULTS.epochs})
  --seed <n>        initial weights and batch order     (default: ${DEFAULTS.seed})
  --batch <n>       images in a batch, 2 to 1024        (default: ${DEFAULTS.batch})
  --threads <n>     CPU threads                         (default: all, here ${availableParallelism()})
  --device <name>   cpu, cuda or cuda:<n>               (default: ${DEFAULTS.device})
  --out <folder>    where the results go                (default: ${DEFAULTS.out})
  --quick           a smaller demo, under a minute: T = ${QUICK.steps}, ${QUICK.epochs} epochs
  --help            this text

Examples:
  npm run demo -- --quick
  npm run demo -- --norm tdbn --vth 3
  npm run demo -- --norm none,tdbn --depth 12
`

export function parseOptions(argv: string[]): Options | 'help' {
  const given = readArguments(argv)
  if (given.help) return 'help'
  const base = given.quick ? QUICK : DEFAULTS
  return {
    norms: readNorms(given.norm),
    depth: integer('depth', given.depth, base.depth, 1, 32),
    steps: integer('steps', given.steps, base.steps, 1, 32),
    vth: threshold(given.vth, base.vth),
    epochs: integer('epochs', given.epochs, base.epochs, 1, 500),
    seed: integer('seed', given.seed, base.seed, 0, 2 ** 32 - 1),
    batch: integer('batch', given.batch, base.batch, 2, 1024),
    threads: integer('threads', given.threads, availableParallelism(), 1, 256),
    device: deviceName(given.device ?? base.device),
    out: given.out ?? base.out,
    quick: given.quick ?? false,
  }
}

function readArguments(argv: string[]) {
  const text = { type: 'string' } as const
  const flag = { type: 'boolean' } as const
  try {
    return parseArgs({
      args: argv,
      options: {
        norm: text,
        depth: text,
        steps: text,
        vth: text,
        epochs: text,
        seed: text,
        batch: text,
        threads: text,
        device: text,
        out: text,
        quick: flag,
        help: { ...flag, short: 'h' },
      },
    }).values
  } catch (error) {
    // Node's own messages run to several lines of advice about '--'; the first sentence is the fact.
    const fact = (error as Error).message.split(/\.\s|\n/)[0]
    throw new OptionError(`${fact}.`)
  }
}

function readNorms(given: string | undefined): NormName[] {
  if (given === undefined) return [...NORMS]
  const names = given
    .split(',')
    .map((name) => name.trim().toLowerCase())
    .filter((name) => name !== '')
  const unknown = names.find((name) => !NORMS.some((norm) => norm === name))
  if (unknown !== undefined) throw new OptionError(`--norm: '${unknown}' is not one of ${NORMS.join(', ')}.`)
  if (names.length === 0) throw new OptionError(`--norm needs a name: one or more of ${NORMS.join(', ')}.`)
  // In the order of the table, each once, whatever order they were asked for in.
  return NORMS.filter((norm) => names.includes(norm))
}

function integer(
  name: string,
  given: string | undefined,
  fallback: number,
  low: number,
  high: number,
): number {
  if (given === undefined) return fallback
  const value = Number(given)
  if (!/^\d+$/.test(given) || value < low || value > high) {
    throw new OptionError(`--${name} takes a whole number from ${low} to ${high}, not '${given}'.`)
  }
  return value
}

function threshold(given: string | undefined, fallback: number): number {
  if (given === undefined) return fallback
  const value = Number(given)
  if (given.trim() === '' || !Number.isFinite(value) || value <= 0) {
    throw new OptionError(`--vth takes a number above 0, such as 0.5 or 3, not '${given}'.`)
  }
  return value
}

function deviceName(given: string): Device {
  if (!/^(cpu|cuda(:\d+)?)$/.test(given))
    throw new OptionError(`--device takes cpu, cuda or cuda:<n>, not '${given}'.`)
  return given as Device
}
