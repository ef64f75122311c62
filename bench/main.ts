// npm run bench: how fast the layers are, beside what memory allows and beside PyTorch and SpikingJelly.

import { writeFileSync } from 'node:fs'
import type { Context } from './context.js'
import { HELP, OptionError, type Options, parseOptions } from './options.js'
import { COMMAND } from './paths.js'
import type { LayerRow, ResultFile } from './report/results.js'

const EXIT_FAILURE = 1
const EXIT_USAGE = 2
const EXIT_INTERRUPTED = 130

async function main(): Promise<number> {
  const options = parseOptions(process.argv.slice(2))
  if (options === 'help') {
    process.stdout.write(HELP)
    return 0
  }
  if (options.readme) {
    const { updateReadme } = await import('./report/readme.js')
    console.log(`Written: ${updateReadme(options.readme).join(', ')}`)
    return 0
  }
  return await run(options)
}

async function run(options: Options): Promise<number> {
  const { comparisonText } = await import('./report/compare.js')
  const { readResults, writeResults } = await import('./report/results.js')
  // An old result that cannot be read is found out now and not after half an hour.
  const old = options.compare === undefined ? undefined : readResults(options.compare)
  const { prepare } = await import('./prepare.js')
  const context = await prepare(options, interruption())
  try {
    const results = await describe(context)
    // After every table, so that whatever ends the program later leaves what was measured.
    const save = () => {
      if (options.json) writeResults(options.json, results)
    }
    save()
    await runSuites(context, results, save)
    save()
    if (options.plot) {
      const { renderPlot } = await import('./report/plot.js')
      const { captionOf } = await import('./report/readme.js')
      writeFileSync(options.plot, renderPlot(results.suites.layers ?? [], captionOf(results)))
    }
    if (old) console.log(comparisonText(results, old))
    for (const line of results.skipped) console.log(`not measured: ${line}`)
    const written = [options.json, options.plot].filter(Boolean)
    if (written.length > 0) console.log(`Written: ${written.join(', ')}`)
  } finally {
    await context.peer?.close()
  }
  return context.interruption.aborted ? EXIT_INTERRUPTED : 0
}

async function describe({ options, peer, skipped }: Context): Promise<ResultFile> {
  const { describeCommit, describeMachine, describeVersions } = await import('./report/machine.js')
  const { FORMAT } = await import('./report/results.js')
  const machine = describeMachine()
  const versions = describeVersions(peer?.versions)
  const cache = machine.cache === null ? '' : `, ${machine.cache / 2 ** 20} MB of last-level cache`
  console.log(
    `${machine.cpu}, ${machine.cores} cores${cache}${machine.gpus.map((gpu) => `; ${gpu}`).join('')}`,
  )
  const known = Object.entries(versions).filter(([, version]) => version !== null)
  console.log(
    `${known.map(([name, version]) => `${name} ${version}`).join(', ')}; ${options.threads} CPU threads\n`,
  )
  return {
    format: FORMAT,
    date: new Date().toISOString(),
    command: `${COMMAND} ${process.argv.slice(2).join(' ')}`.trim(),
    commit: describeCommit(),
    machine,
    versions,
    threads: options.threads,
    skipped,
    suites: {},
  }
}

async function runSuites(context: Context, { suites }: ResultFile, save: () => void): Promise<void> {
  const { layerTable, memoryTable, napiTable, scalingTable, trainingTable } = await import(
    './report/tables.js'
  )
  const show = (table: string) => {
    console.log(`${table}\n`)
    save()
  }
  for (const suite of context.options.suites) {
    if (suite === 'layers') {
      const { runLayers } = await import('./suites/layers.js')
      const rows: LayerRow[] = []
      suites.layers = rows
      const checked = await runLayers(context, (ofCase) => {
        rows.push(...ofCase)
        show(layerTable(ofCase))
      })
      if (context.options.checkOnly) console.log(`${checked} results checked, all right`)
    } else if (suite === 'napi') {
      const { runNapi } = await import('./suites/napi.js')
      suites.napi = await runNapi(context)
      show(napiTable(suites.napi))
    } else if (suite === 'scaling') {
      const { runScaling } = await import('./suites/scaling.js')
      suites.scaling = await runScaling(context)
      show(scalingTable(suites.scaling))
    } else if (suite === 'memory') {
      const { runMemory } = await import('./suites/memory.js')
      suites.memory = await runMemory(context)
      show(memoryTable(suites.memory))
    } else {
      const { runTraining } = await import('./suites/training.js')
      suites.training = await runTraining(context)
      show(trainingTable(suites.training))
    }
  }
}

/** Fires at the first Ctrl-C, after which the run ends where it can and keeps what it has; a second one ends it at once. */
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

main().then(
  (code) => {
    process.exitCode = code
  },
  (error: Error) => {
    const isTheirs = error instanceof OptionError
    const isPlain = isTheirs || error.name === 'WrongResult' || error.name === 'ResultError'
    console.error(isPlain ? `bench: ${error.message}` : error)
    if (isTheirs) console.error(`See ${COMMAND} --help.`)
    process.exitCode = isTheirs ? EXIT_USAGE : EXIT_FAILURE
  },
)
