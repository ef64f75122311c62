// npm run demo: does a deep spiking network train, and what does a normalisation layer have to do with it?
//
// The demo builds the same network several times (8 layers of 3×3 convolution and LIF neurons on 8×8 handwritten
// digits), once without normalisation and once with each norm of the package, and trains each from the same initial
// weights on the same batches.
//
// What it shows: without a norm the signal dies on its way through the layers, the gradient that comes back to the first
// is below 1e-9 (less than Adam's epsilon), and nothing is learnt; with one, the same network reads digits. It is depth
// that defeats it: four layers learn without a norm too (--norm none --depth 4). tdBN scales what it normalises to the
// firing threshold and so still trains at a threshold of 3 (--vth 3), where BatchNorm falls behind.
//
// What it does not show: that one norm beats another at the default threshold. A per cent between BatchNorm, TEBN and
// BNTT on 359 test images is within the noise of the seed, and at v_th = 1 tdBN is BatchNorm to the last bit. NeuNorm
// comes with BatchNorm here because it normalises spikes, not currents.

import { resolve } from 'node:path'
import { HELP, OptionError, type Options, parseOptions } from './options.js'
import type { RunResult } from './results.js'
import { tableOf } from './table.js'

const EXIT_FAILURE = 1
const EXIT_USAGE = 2
const EXIT_INTERRUPTED = 130

async function main(): Promise<number> {
  const options = parseOptions(process.argv.slice(2))
  if (options === 'help') {
    process.stdout.write(HELP)
    return 0
  }
  const { runDemo } = await loadDemo()
  const results = await runDemo(options, interruption())
  if (results.runs.length > 0) console.log(`\n${tableOf(results.runs)}\n`)
  printFiles(options, results.runs)
  if (!results.interrupted) return 0
  console.log('\nStopped by Ctrl-C; what is listed above is complete and readable.')
  return EXIT_INTERRUPTED
}

/** Only now, so that --help and a mistyped option answer at once, and where the package is not built yet. */
async function loadDemo(): Promise<typeof import('./run.js')> {
  try {
    return await import('./run.js')
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code !== 'ERR_MODULE_NOT_FOUND' && code !== 'MODULE_NOT_FOUND') throw error
    throw new Error(
      `the package is not built: run "npm install" and "npm run build" first (${message.split('\n')[0]})`,
    )
  }
}

/** Fires at the first Ctrl-C; a second one ends the program on the spot. */
function interruption(): AbortSignal {
  const controller = new AbortController()
  const stop = () => {
    if (controller.signal.aborted) process.exit(EXIT_INTERRUPTED)
    controller.abort()
  }
  process.on('SIGINT', stop)
  process.on('SIGTERM', stop)
  return controller.signal
}

function printFiles({ out }: Options, runs: RunResult[]): void {
  if (runs.length === 0) {
    console.log(`\nNo epoch was finished, so nothing was written to ${resolve(out)}.`)
    return
  }
  const files: [string, string][] = [
    ['report.html', 'the plots: open it in a browser'],
    ['results.json', 'every number of the report'],
    ...runs.map(({ weightsFile, bestEpoch, reloadedAccuracy }): [string, string] => [
      weightsFile,
      `weights of epoch ${bestEpoch}; read back and tested again: ${reloadedAccuracy.toFixed(1)} %`,
    ]),
  ]
  const width = Math.max(...files.map(([name]) => name.length))
  console.log(`Written to ${resolve(out)}:`)
  for (const [name, content] of files) console.log(`  ${name.padEnd(width)}  ${content}`)
}

main().then(
  (code) => {
    process.exitCode = code
  },
  (error: Error) => {
    const usage = error instanceof OptionError
    console.error(usage ? `demo: ${error.message} See npm run demo -- --help.` : error)
    process.exitCode = usage ? EXIT_USAGE : EXIT_FAILURE
  },
)
