// What reaches the neurons of one layer, time step by time step: the norm's output over the bare convolution's.

import type { NormName } from '../options.js'
import { type Histogram, LABELS, type ProbeResult } from '../results.js'
import { countTicks, type Frame, linear, path, type Scale, svg, text, ticks, xAxis } from './svg.js'

const WIDTH = 520
const ROW = 46
// A ridge may reach into the row above; that is what keeps the rows low and the shapes readable.
const RIDGE = 58
const MOST_STEPS = 8

export function distributionPlot(norm: NormName, { before, after }: ProbeResult, vth: number): string {
  const steps = countTicks(before.counts.length, MOST_STEPS)
  const frame: Frame = { left: 44, right: WIDTH - 128, top: 34, bottom: 34 + ROW * steps.length + 16 }
  const x = linear([before.low, before.high], [frame.left, frame.right])
  const reaches = after ?? before
  const body = steps.flatMap((step, row) => {
    const base = frame.top + ROW * (row + 1) + 12
    const mean = reaches.mean[step - 1] as number
    const deviation = reaches.deviation[step - 1] as number
    return [
      `<line x1="${frame.left}" y1="${base}" x2="${frame.right}" y2="${base}" class="grid"/>`,
      text(frame.left - 8, base, `t = ${step}`, 'tick end'),
      ...ridges(norm, before, after, step - 1, x, base),
      text(frame.right + 12, base - 3, `${signed(mean)} ± ${deviation.toFixed(2)}`, 'tick'),
    ]
  })
  return svg(WIDTH, frame.bottom + 46, `${LABELS[norm]}: values that reach the neurons, by time step`, [
    ...body,
    `<line x1="${x(vth)}" y1="${frame.top - 12}" x2="${x(vth)}" y2="${frame.bottom}" class="threshold"/>`,
    text(x(vth) + 6, frame.top - 6, 'v_th', 'tick'),
    text(frame.right + 12, frame.top - 6, 'mean ± std. dev.', 'tick'),
    ...xAxis(frame, ticks(before.low, before.high, 7), x, String, 'input current'),
  ])
}

function ridges(
  norm: NormName,
  before: Histogram,
  after: Histogram | undefined,
  step: number,
  x: Scale,
  base: number,
): string[] {
  if (!after) return [ridge(before, step, x, base, `ridge ${norm}`)]
  return [ridge(after, step, x, base, `ridge ${norm}`), ridge(before, step, x, base, 'ridge bare')]
}

function ridge(
  { counts, low, high }: Histogram,
  step: number,
  x: Scale,
  base: number,
  classes: string,
): string {
  const now = counts[step] as number[]
  const width = (high - low) / now.length
  // One scale for all time steps of a curve, so that their heights compare.
  const y = linear([0, Math.max(1, ...counts.flat())], [base, base - RIDGE])
  const points = now.map((count, bin) => [x(low + width * (bin + 0.5)), y(count)] as const)
  return `<path class="${classes}" d="${path([[x(low), base], ...points, [x(high), base]])}"/>`
}

function signed(value: number): string {
  // −0.00 is noise, not a sign.
  return `${value < -0.005 ? '−' : ' '}${Math.abs(value).toFixed(2)}`
}
