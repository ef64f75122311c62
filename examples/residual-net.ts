/**
 * A residual spiking net with tdBN: where n branches meet, alpha is 1/√n, so that their sum has the deviation that the
 * threshold expects (Zheng et al. 2021).
 *
 *     npx tsx examples/residual-net.ts [--steps 40]
 */
import { parseArgs } from 'node:util'
import { manualSeed, nn, optim, type Tensor, ThresholdDependentBatchNorm2d, tensor } from 'spikenorm'

const { values: options } = parseArgs({ options: { steps: { type: 'string', default: '40' } } })
const steps = Number(options.steps)
const [T, N, channels, side, classes] = [4, 12, 8, 8, 3]
const vTh = 1
manualSeed(2)

// tdBN gives the neurons inputs of deviation vTh, as they are: without decayInput they are not divided by tau.
const lif = () => new nn.LIFNode({ vThreshold: vTh, decayInput: false, surrogate: 'atan', detachReset: true })
const conv = (inChannels: number) => new nn.Conv2d(inChannels, channels, 3, { padding: 1, bias: false })

/** Two convolutions beside a shortcut; what is added are currents, and the neurons after the sum fire on both. */
function block(): nn.Sequential {
  const branch = new nn.Sequential(
    conv(channels),
    new ThresholdDependentBatchNorm2d(1, vTh, channels),
    lif(),
    conv(channels),
    new ThresholdDependentBatchNorm2d(Math.SQRT1_2, vTh, channels),
  )
  return new nn.Sequential(new nn.Residual(branch), lif())
}

const net = new nn.Sequential(
  conv(1),
  new ThresholdDependentBatchNorm2d(Math.SQRT1_2, vTh, channels),
  ...Array.from({ length: 4 }, block),
  new nn.AvgPool2d(2),
  new nn.Flatten(),
  new nn.Linear(channels * 16, classes),
)
net.stepMode = 'm' // containers hand it down
// Keys as PyTorch's: the first norm in the branch of the residual of the module at 2.
const [key] = net.namedParameters()[4]!
console.log(`${net.parameters().reduce((sum, { size }) => sum + size, 0)} parameters, among them ${key}`)

const adam = new optim.AdamW(net.parameters(), { lr: 0.01 })
const schedule = new optim.CosineAnnealingLR(adam, { tMax: steps })
const labels = Array.from({ length: N }, (_, n) => n % classes)
for (let step = 0; step < steps; step++) {
  using x = gratings(step)
  const result = nn.crossEntropy(net.forward(x), labels)
  if (step % 5 === 0) console.log(step, result.loss.toFixed(4))
  net.backward(result.grad)
  if (step === 0) {
    // Backward has gone through every block: the shortcut keeps the gradient of the first layer alive.
    console.log(`first layer's gradient: ${norm(net.parameters()[0]!.grad!).toFixed(4)}`)
  }
  adam.step()
  schedule.step()
  adam.zeroGrad()
  net.reset()
}

net.eval()
const { correct } = nn.crossEntropy(net.forward(gratings(-1)), labels)
console.log(`accuracy on new data: ${(correct / N).toFixed(2)}`)

/** Gratings of three directions under noise, the same in every time step: `[T, N, 1, H, W]`. */
function gratings(seed: number): Tensor {
  const images = labels.flatMap((label, n) =>
    Array.from({ length: side * side }, (_, i) => {
      const [row, column] = [Math.floor(i / side), i % side]
      const along = [row, column, row + column][label]!
      const noise = (Math.sin(seed * 53.17 + n * 12.9898 + i * 78.233) * 43758.5453) % 1
      return Math.sin(along * 1.6) + noise
    }),
  )
  return tensor(Array.from({ length: T }, () => images).flat(), [T, N, 1, side, side])
}

function norm(gradient: Tensor): number {
  return Math.hypot(...gradient.toFloat64Array())
}
