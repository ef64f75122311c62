// One demo run: every chosen network in turn, and the files it leaves in the output folder.

import { accessSync, constants, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { loadSafetensors, SpikenormError, setNumThreads, tensor } from 'spikenorm'
import { batchCount, loadDigits, type Split } from './data.js'
import { evaluate, measureStart } from './measure.js'
import { buildNet } from './model.js'
import { type NormName, OptionError, type Options } from './options.js'
import { probe } from './probe.js'
import { startProgress } from './progress.js'
import { renderReport } from './report/page.js'
import type { Results, RunResult } from './results.js'
import { train } from './train.js'

/** Returns after the last network, or early, with `interrupted` set, once `stop` fires. */
export async function runDemo(options: Options, stop: AbortSignal): Promise<Results> {
  prepareDevice(options)
  prepareFolder(options.out)
  const data = loadDigits()
  const results: Results = {
    options,
    images: { train: data.train.count, validation: data.validation.count, test: data.test.count },
    seconds: 0,
    interrupted: false,
    runs: [],
  }
  const started = performance.now()
  printHeader(results)
  for (const norm of options.norms) {
    const run = await runOne(norm, data, options, stop)
    if (run) results.runs.push(run)
    results.seconds = (performance.now() - started) / 1000
    results.interrupted = stop.aborted
    // After every network, so that whatever ends the program later leaves these behind.
    if (results.runs.length > 0) writeResults(results)
    if (stop.aborted) break
  }
  return results
}

/** Nothing comes back when Ctrl-C leaves no finished epoch to speak of. */
async function runOne(
  norm: NormName,
  data: Split,
  options: Options,
  stop: AbortSignal,
): Promise<RunResult | undefined> {
  const shape = { norm, depth: options.depth, steps: options.steps, vth: options.vth }
  const weightsFile = `${norm}.safetensors`
  const path = join(options.out, weightsFile)
  const start = measureStart(shape, data.train, options)
  const model = buildNet(shape, options.seed, options.device)
  const progress = startProgress(norm, options.epochs, batchCount(data.train, options.batch))
  const training = await train(model, data, options, path, progress, stop).finally(() => progress.stop())
  const best = training.epochs.find(({ epoch }) => epoch === training.bestEpoch)
  if (!best) return undefined

  // Another seed: what this network knows, it knows from the file.
  const reloaded = buildNet(shape, options.seed + 1, options.device)
  reloaded.net.loadStateDict(loadSafetensors(path))
  const reloadedAccuracy = evaluate(reloaded.net, data.test, options)
  if (reloadedAccuracy !== best.testAccuracy) {
    throw new Error(
      `${path} gives ${reloadedAccuracy} % after reloading, but gave ${best.testAccuracy} % when saved`,
    )
  }
  return {
    norm,
    start,
    ...training,
    testAccuracy: best.testAccuracy,
    reloadedAccuracy,
    parameters: model.net.parameters().reduce((sum, parameter) => sum + parameter.size, 0),
    weightsFile,
    probe: probe(reloaded, data.test, options),
  }
}

function prepareDevice({ device, threads }: Options): void {
  setNumThreads(threads)
  try {
    tensor([0], [1], { device }).dispose()
  } catch (error) {
    if (!(error instanceof SpikenormError)) throw error
    throw new OptionError(`--device ${device}: ${error.message}. Leave the option out to run on the CPU.`)
  }
}

function prepareFolder(out: string): void {
  try {
    mkdirSync(out, { recursive: true })
    accessSync(out, constants.W_OK)
  } catch (error) {
    throw new OptionError(
      `--out ${out}: cannot write to this folder (${(error as NodeJS.ErrnoException).code}).`,
    )
  }
}

function writeResults(results: Results): void {
  writeFileSync(join(results.options.out, 'results.json'), `${JSON.stringify(results, null, 1)}\n`)
  writeFileSync(join(results.options.out, 'report.html'), renderReport(results))
}

function printHeader({ options, images }: Results): void {
  const { depth, steps, vth, epochs, seed, batch, threads, device } = options
  const where = device === 'cpu' ? `${threads} CPU thread${threads === 1 ? '' : 's'}` : device
  console.log(
    `depth ${depth}, T = ${steps}, v_th = ${vth}, ${epochs} epoch${epochs === 1 ? '' : 's'}, batch ${batch}, seed ${seed}, ${where}`,
  )
  console.log(
    `digits: ${images.train} to train, ${images.validation} to choose the best epoch, ${images.test} to test\n`,
  )
}
