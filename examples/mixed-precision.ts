/**
 * Mixed precision: activations in float16 or bfloat16, which halves the memory that moves, beside parameters, statistics
 * and optimiser in float32. One net is trained three times from the same weights.
 *
 *     npx tsx examples/mixed-precision.ts [--steps 20]
 */
import { parseArgs } from 'node:util'
import {
  type DType,
  manualSeed,
  nn,
  optim,
  TemporalEffectiveBatchNorm2d,
  type Tensor,
  tensor,
} from 'spikenorm'

const { values: options } = parseArgs({ options: { steps: { type: 'string', default: '20' } } })
const [T, N, side, classes] = [4, 16, 8, 2]

for (const dtype of ['float32', 'bfloat16', 'float16'] as const) {
  const { first, last, parameters, activations, statistics } = train(dtype, Number(options.steps))
  console.log(
    `${dtype}: loss ${first.toFixed(4)} to ${last.toFixed(4)}, activations ${activations}, parameters ${parameters}, ` +
      `running statistics ${statistics}`,
  )
}

function train(dtype: DType, steps: number) {
  manualSeed(3) // the same initial weights each time
  // A dtype option says what the inputs are; beside half types the parameters are float32 all the same.
  const net = new nn.Sequential(
    new nn.Conv2d(1, 8, 3, { padding: 1, bias: false, dtype }),
    new TemporalEffectiveBatchNorm2d(T, 8, { dtype }),
    new nn.LIFNode({ surrogate: 'atan' }),
    new nn.Flatten(),
    new nn.Linear(8 * side * side, classes, { dtype }),
  )
  net.stepMode = 'm'
  const adam = new optim.Adam(net.parameters(), { lr: 0.005 })
  const labels = Array.from({ length: N }, (_, n) => n % classes)
  const x = images(labels).to(dtype) // rounded once
  const losses: number[] = []
  let logits: Tensor = x
  for (let step = 0; step < steps; step++) {
    logits = net.forward(x) // of the input's dtype, as every activation and its gradient
    const { loss, grad } = nn.crossEntropy(logits, labels)
    net.backward(grad)
    adam.step() // moves float32 weights by float32 gradients: no master copy is needed beside them
    adam.zeroGrad()
    net.reset()
    losses.push(loss)
  }
  // float16 gradients below 6e-8 become 0; bfloat16 has float32's range, and is the one to take for deep nets.
  return {
    first: losses[0]!,
    last: losses.at(-1)!,
    activations: logits.dtype,
    parameters: net.parameters()[0]!.dtype,
    statistics: net.namedBuffers()[0]![1].dtype,
  }
}

/** Bars across (label 0) or down (label 1) under noise: `[T, N, 1, H, W]`. */
function images(labels: number[]): Tensor {
  const frames = labels.flatMap((label, n) =>
    Array.from({ length: side * side }, (_, i) => {
      const along = label === 0 ? Math.floor(i / side) : i % side
      return Number((along + n) % 3 === 0) + 0.4 * Math.sin(i * 12.9898 + n * 78.233)
    }),
  )
  return tensor(Array.from({ length: T }, () => frames).flat(), [T, N, 1, side, side])
}
