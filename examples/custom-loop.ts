/**
 * A training loop of your own: single steps, a loss written by hand, and back-propagation through time that is truncated
 * with detach(), for a stream that never ends.
 *
 *     npx tsx examples/custom-loop.ts [--windows 60]
 */
import { parseArgs } from 'node:util'
import { BatchNorm1d, functional, manualSeed, nn, optim, type Tensor, tensor } from 'spikenorm'

const { values: options } = parseArgs({ options: { windows: { type: 'string', default: '60' } } })
const [N, inputs, hidden, window] = [16, 4, 48, 8]
manualSeed(4)

const norm = new BatchNorm1d(hidden)
const net = new nn.Sequential(
  new nn.Linear(inputs, hidden, { bias: false }),
  norm,
  new nn.LIFNode({ tau: 4, decayInput: false, surrogate: 'atan' }),
  new nn.Linear(hidden, 1),
)
const adam = new optim.Adam(net.parameters(), { lr: 0.01 })

// There is no autograd. Each forward in training mode leaves on its module what backward needs; each backward takes the
// latest one. So T forwards are followed by T backwards in reverse, each with the gradient of the loss by its output.
// The neurons hand the gradient of their voltage back from each step to the one before.
for (let w = 0; w < Number(options.windows); w++) {
  const steps = Array.from({ length: window }, (_, i) => w * window + i)
  const { loss, gradients } = forwards(steps)
  for (const dy of gradients.toReversed()) net.backward(dy)
  adam.step()
  adam.zeroGrad()
  // The voltage goes on into the next window, its history does not: memory and time per window stay the same for ever.
  functional.detachNet(net)
  if (w % 10 === 0) console.log(w, loss.toFixed(4))
}

// What truncation leaves out. Two windows in one go give the gradient of every path through time; with detach() between
// them the second window is blind to the first one's weights, though it starts from the same voltage.
norm.eval() // frozen: it normalises by its running statistics and hands the gradient through
const steps = Array.from({ length: 2 * window }, (_, i) => i)
const whole = gradientOf(() => backwards(forwards(steps).gradients))
const cut = gradientOf(() => {
  const first = forwards(steps.slice(0, window)).gradients
  functional.detachNet(net)
  const second = forwards(steps.slice(window)).gradients
  backwards([...first, ...second]) // still latest first, through both
})
const apart = gradientOf(() => {
  backwards(forwards(steps.slice(0, window)).gradients)
  backwards(forwards(steps.slice(window)).gradients)
})
console.log(`detach() against a backward after each window: off by ${distance(cut, apart).toExponential(1)}`)
console.log(
  `left out by truncation: ${(distance(whole, cut) / Math.hypot(...whole)).toFixed(3)} of the gradient`,
)

// The same numbers in one call, step mode 'm': [T, N, inputs].
const atOnce = gradientOf(() => {
  functional.setStepMode(net, 'm')
  const x = tensor(steps.flatMap(signal), [steps.length, N, inputs])
  const y = net.forward(x).toFloat64Array()
  const dy = steps.flatMap((t) =>
    targets(t).map((target, n) => (2 * (y[t * N + n]! - target)) / (N * window)),
  )
  net.backward(tensor(dy, [steps.length, N, 1]))
  functional.setStepMode(net, 's')
})
console.log(`step by step against all at once: off by ${distance(whole, atOnce).toExponential(1)}`)

/** One forward for each step, and the mean squared error with its gradient by each output. */
function forwards(steps: number[]): { loss: number; gradients: Tensor[] } {
  let loss = 0
  const gradients = steps.map((t) => {
    const y = net.forward(tensor(signal(t), [N, inputs])).toFloat64Array()
    const errors = targets(t).map((target, n) => y[n]! - target)
    loss += errors.reduce((sum, error) => sum + error ** 2, 0) / (N * window)
    return tensor(
      errors.map((error) => (2 * error) / (N * window)),
      [N, 1],
    )
  })
  return { loss, gradients }
}

function backwards(gradients: Tensor[]): void {
  for (const dy of gradients.toReversed()) net.backward(dy)
}

/** The first layer's gradient after `body`, which starts from a voltage of 0. */
function gradientOf(body: () => void): Float64Array {
  functional.resetNet(net)
  net.zeroGrad()
  body()
  const gradient = net.parameters()[0]!.grad!.toFloat64Array()
  functional.resetNet(net)
  return gradient
}

/** Inputs of step t, `[N, inputs]` values: waves of different pace. */
function signal(t: number): number[] {
  return Array.from({ length: N * inputs }, (_, i) => Math.sin(t * (0.3 + 0.1 * (i % inputs)) + i))
}

/** What to tell at step t: the first input's mean over the last three steps, which takes a memory. */
function targets(t: number): number[] {
  const first = (step: number) => signal(step).filter((_, i) => i % inputs === 0)
  return first(t).map((value, n) => (value + first(t - 1)[n]! + first(t - 2)[n]!) / 3)
}

function distance(a: Float64Array, b: Float64Array): number {
  return Math.hypot(...a.map((value, i) => value - b[i]!))
}
