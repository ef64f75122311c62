// Spike rasters: one row per neuron, one column per time step, and the digits that were shown above their columns.

import type { NormName } from '../options.js'
import { LABELS, type Raster } from '../results.js'
import { type Frame, short, svg, text } from './svg.js'

const WIDTH = 520
const ROW = 5
const GAP = 6
const THUMBNAIL = 30

export function rasterPlot(norm: NormName, raster: Raster, steps: number): string {
  const frame: Frame = { left: 30, right: WIDTH - 6, top: 46, bottom: 46 + raster.neurons * ROW }
  const share = (frame.right - frame.left + GAP) / raster.digits.length
  const cell = (share - GAP) / steps
  const columns = raster.digits.flatMap((digit, i) => {
    const left = frame.left + i * share
    const size = `width="${short(share - GAP)}" height="${frame.bottom - frame.top}"`
    return [
      thumbnail(raster.images[i] as number[], left + (share - GAP - THUMBNAIL) / 2, 8),
      `<rect x="${short(left)}" y="${frame.top}" ${size} class="lane"/>`,
      `<path class="spikes ${norm}" d="${spikePath(raster.spikes[i] as number[][], left, frame.top, cell)}"/>`,
      text(left + (share - GAP) / 2, frame.bottom + 16, String(digit), 'tick middle'),
    ]
  })
  const middle = (frame.top + frame.bottom) / 2
  return svg(WIDTH, frame.bottom + 42, `${LABELS[norm]}: spikes of the last layer, by digit and time step`, [
    ...columns,
    text(14, middle, `${raster.neurons} neurons`, 'name middle', `transform="rotate(-90 14 ${middle})"`),
    text(
      (frame.left + frame.right) / 2,
      frame.bottom + 35,
      `digit shown, T = ${steps} steps each`,
      'name middle',
    ),
  ])
}

/** All spikes of a digit as one path of small boxes: a tenth of the size of as many elements. */
function spikePath(spikes: number[][], left: number, top: number, cell: number): string {
  const width = Math.max(cell - 1, cell * 0.7)
  return spikes
    .flatMap((steps, neuron) =>
      steps.map(
        (step) =>
          `M${short(left + step * cell)} ${top + neuron * ROW + 0.5}h${short(width)}v${ROW - 1}h-${short(width)}z`,
      ),
    )
    .join('')
}

function thumbnail(pixels: number[], left: number, top: number): string {
  const side = Math.sqrt(pixels.length)
  const size = THUMBNAIL / side
  const dots = pixels.map((ink, i) => {
    const x = short((i % side) * size)
    const y = short(Math.floor(i / side) * size)
    return ink > 0 ? `<rect x="${x}" y="${y}" width="${size}" height="${size}" opacity="${short(ink)}"/>` : ''
  })
  return `<g class="ink" transform="translate(${short(left)} ${top})">${dots.join('')}</g>`
}
