/**
 * Inference on a stream: one frame a call as it comes from the sensor, an answer as soon as the net is sure, and a reset
 * before the next recording. The numbers are those of all frames in one call.
 *
 *     npx tsx examples/online-inference.ts
 */
import {
  BatchNormThroughTime2d,
  functional,
  manualSeed,
  memoryStats,
  nn,
  noGrad,
  optim,
  type Tensor,
  tensor,
} from 'spikenorm'

const [T, classes, side] = [6, 2, 8]
manualSeed(1)

// BNTT has statistics and a weight of its own for every time step, so it has to know which step it is at; the neurons
// keep their voltage. Both are the state that goes on from call to call until reset().
const net = new nn.Sequential(
  new nn.Conv2d(1, 8, 3, { padding: 1, bias: false }),
  new BatchNormThroughTime2d(T, 8),
  new nn.LIFNode({ surrogate: 'atan' }),
  new nn.Flatten(),
  new nn.Linear(8 * side * side, classes),
)

// A short training with all frames at once: step mode 'm', [T, N, C, H, W].
functional.setStepMode(net, 'm')
const adam = new optim.Adam(net.parameters(), { lr: 0.01 })
for (let step = 0; step < 40; step++) {
  const labels = Array.from({ length: 16 }, (_, n) => n % classes)
  const frames = labels.flatMap((label, n) => recording(label, 100 * step + n))
  const x = tensor(timeFirst(frames.flat(), labels.length), [T, labels.length, 1, side, side])
  const { grad } = nn.crossEntropy(net.forward(x), labels)
  net.backward(grad)
  adam.step()
  adam.zeroGrad()
  functional.resetNet(net)
}

// From here on one frame a call: step mode 's', [N, C, H, W]. Nothing is recorded for backward in evaluation mode.
net.eval()
functional.setStepMode(net, 's')
let correct = 0
let frames = 0
const before = memoryStats().allocated
for (let n = 0; n < 20; n++) {
  const label = n % classes
  const { answer, steps } = classify(recording(label, 10_000 + n))
  if (answer === label) correct += 1
  frames += steps
}
console.log(`accuracy: ${correct / 20}, after ${frames / 20} of ${T} frames on average`)
console.log(`memory has grown by ${Math.max(0, memoryStats().allocated - before)} bytes`)

// All frames in one call give the same numbers as frame by frame.
const sample = recording(1, 7)
const singly = noGrad(() => sample.map((frame) => values(net.forward(asInput(frame)))))
functional.resetNet(net)
functional.setStepMode(net, 'm')
const together = values(net.forward(tensor(sample.flat(), [T, 1, 1, side, side])))
const worst = singly.flat().reduce((most, value, i) => Math.max(most, Math.abs(value - together[i]!)), 0)
console.log(`frame by frame against all at once: off by ${worst}`)

/** Feeds frames until the scores, summed over time, are far enough apart. */
function classify(frames: number[][]): { answer: number; steps: number } {
  const scores = new Float64Array(classes)
  let steps = 0
  for (const frame of frames) {
    using x = asInput(frame)
    using y = net.forward(x)
    for (const [k, score] of y.toFloat64Array().entries()) scores[k]! += score
    steps += 1
    if (Math.abs(scores[0]! - scores[1]!) > 5) break
  }
  // The next recording has nothing to do with this one. Without the reset, BNTT would throw ERR_TIME_STEP past step T.
  functional.resetNet(net)
  return { answer: scores[0]! > scores[1]! ? 0 : 1, steps }
}

function asInput(frame: number[]): Tensor {
  return tensor(frame, [1, 1, side, side])
}

function values(y: Tensor): number[] {
  return [...y.toFloat64Array()]
}

/** T frames of events: a bar that wanders down (label 0) or to the right (label 1), among noise. */
function recording(label: number, seed: number): number[][] {
  return Array.from({ length: T }, (_, t) =>
    Array.from({ length: side * side }, (_, i) => {
      const along = label === 0 ? Math.floor(i / side) : i % side
      const isBar = along === (t + seed) % side
      const noise = Math.abs(Math.sin((seed + 1) * 12.9898 + t * 78.233 + i * 37.719) * 43758.5453) % 1
      return isBar || noise > 0.7 ? 1 : 0
    }),
  )
}

/** [N, T, pixels] to [T, N, pixels]. */
function timeFirst(values: number[], N: number): number[] {
  const pixels = side * side
  return values.map((_, i) => {
    const [t, n, p] = [Math.floor(i / (N * pixels)), Math.floor(i / pixels) % N, i % pixels]
    return values[(n * T + t) * pixels + p]!
  })
}
