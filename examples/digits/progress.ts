// What is seen while a network trains: a bar on a terminal, a line per epoch anywhere else.

import { SingleBar } from 'cli-progress'
import type { NormName } from './options.js'
import { type EpochResult, LABELS } from './results.js'

export interface Progress {
  /** after every batch, with the means of this epoch so far */
  batch(loss: number, accuracy: number): void
  epoch(result: EpochResult): void
  /** ends the display, finished or not */
  stop(): void
}

// What a line is long without its bar: at 80 columns there is still room for a short one.
const TEXT_WIDTH = 72
const WIDTH = Math.max(...Object.values(LABELS).map((label) => label.length))

export function startProgress(norm: NormName, epochs: number, batchesPerEpoch: number): Progress {
  const label = LABELS[norm].padEnd(WIDTH)
  return process.stdout.isTTY ? bar(label, epochs, batchesPerEpoch) : lines(label, epochs)
}

function bar(label: string, epochs: number, batchesPerEpoch: number): Progress {
  const format = `${label} {bar} epoch {epoch}/${epochs}  loss {loss}  train {train} %  test {test} %  {duration_formatted}`
  // Its own SIGINT handler would only stop the bar; the run's handler does that and the rest.
  const display = new SingleBar({
    format,
    barsize: Math.min(24, Math.max(8, process.stdout.columns - TEXT_WIDTH)),
    barCompleteChar: '█',
    barIncompleteChar: '░',
    hideCursor: true,
    stream: process.stdout,
    gracefulExit: false,
  })
  const shown = { epoch: 1, loss: '  –   ', train: '  –  ', test: '  –  ' }
  let done = 0
  display.start(epochs * batchesPerEpoch, 0, shown)
  return {
    batch(loss, accuracy) {
      shown.epoch = Math.floor(done / batchesPerEpoch) + 1
      done++
      display.update(done, Object.assign(shown, { loss: loss.toFixed(4), train: percent(accuracy) }))
    },
    epoch(result) {
      display.update(done, Object.assign(shown, { test: percent(result.testAccuracy) }))
    },
    stop: () => display.stop(),
  }
}

function lines(label: string, epochs: number): Progress {
  return {
    batch() {},
    epoch({ epoch, loss, trainAccuracy, testAccuracy, seconds }) {
      const count = `${String(epoch).padStart(String(epochs).length)}/${epochs}`
      const accuracies = `train ${percent(trainAccuracy)} %  test ${percent(testAccuracy)} %`
      console.log(`${label}  epoch ${count}  loss ${loss.toFixed(4)}  ${accuracies}  ${seconds.toFixed(1)} s`)
    },
    stop() {},
  }
}

function percent(value: number): string {
  return value.toFixed(1).padStart(5)
}
