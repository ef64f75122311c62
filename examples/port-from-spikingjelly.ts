/**
 * A SpikingJelly model in Node: its weights come in, give the outputs that they gave there, are trained on, and go back
 * out to PyTorch. The Python half is port-from-spikingjelly.py, which wrote the file beside it.
 *
 *     npx tsx examples/port-from-spikingjelly.ts [--out FILE]
 */
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import {
  functional,
  loadSafetensors,
  nn,
  noGrad,
  optim,
  saveSafetensors,
  TemporalEffectiveBatchNorm2d,
  type Tensor,
  ThresholdDependentBatchNorm2d,
} from 'spikenorm'

const { values: options } = parseArgs({ options: { out: { type: 'string' } } })
const [T, classes] = [4, 3]

// 1. The same modules in the same order: nn.Sequential numbers them as PyTorch does, so the keys agree. SpikingJelly's
//    surrogate.ATan() is 'atan' here; options keep their names in camelCase.
const lif = () => new nn.LIFNode({ tau: 2, surrogate: 'atan', detachReset: true })
const net = new nn.Sequential(
  new nn.Conv2d(2, 8, 3, { padding: 1, bias: false }),
  new ThresholdDependentBatchNorm2d(1, 1, 8),
  lif(),
  new nn.MaxPool2d(2),
  new nn.Conv2d(8, 8, 3, { padding: 1, bias: false }),
  new TemporalEffectiveBatchNorm2d(T, 8),
  lif(),
  new nn.Flatten(),
  new nn.Linear(8 * 4 * 4, classes),
)
functional.setStepMode(net, 'm')

// 2. Weights in. In Python: safetensors.torch.save_file(net.state_dict(), path). A key too many, one missing or another
//    shape would throw ERR_STATE_DICT, with nothing loaded.
const file = loadSafetensors(fileURLToPath(new URL('port-from-spikingjelly.safetensors', import.meta.url)))
const weights = below('net.')
net.loadStateDict(weights)
console.log(`loaded ${Object.keys(weights).length} tensors of SpikingJelly's state_dict`)

// 3. Inference: what SpikingJelly gave for the same input, decoded by the mean over time.
net.eval()
const logits = meanOverTime(noGrad(() => net.forward(take('x'))))
functional.resetNet(net)
console.log(`logits: off by ${worst(logits, take('logits').toFloat64Array()).toExponential(1)} at most`)

// 4. Training goes on from here: loss, gradients and the weights after a step are SpikingJelly's.
net.train()
const sgd = new optim.SGD(net.parameters(), { lr: 0.1 })
const { loss, grad } = nn.crossEntropy(net.forward(take('x')), take('labels'))
net.backward(grad)
const gradients = net
  .namedParameters()
  .map(([name, { grad }]) => worst(grad!.toFloat64Array(), take(`grad.${name}`).toFloat64Array()))
sgd.step()
functional.resetNet(net)
console.log(`loss: ${loss.toFixed(4)} here, ${take('loss').item().toFixed(4)} there`)
console.log(`gradients: off by ${Math.max(...gradients).toExponential(1)} at most`)
const stepped = Object.entries(net.stateDict()).map(([name, value]) =>
  worst(value.toFloat64Array(), take(`stepped.${name}`).toFloat64Array()),
)
console.log(`weights after a step: off by ${Math.max(...stepped).toExponential(1)} at most`)

// 5. Weights out. In Python: net.load_state_dict(safetensors.torch.load_file(path)), which is strict too.
if (options.out) {
  saveSafetensors(options.out, net.stateDict())
  console.log(`written to ${options.out}`)
}

function take(name: string): Tensor {
  const value = file[name]
  if (!value) throw new Error(`the file has no ${name}`)
  return value
}

/** The tensors whose names start with `prefix`, without it. */
function below(prefix: string): Record<string, Tensor> {
  const entries = Object.entries(file).filter(([name]) => name.startsWith(prefix))
  return Object.fromEntries(entries.map(([name, value]) => [name.slice(prefix.length), value]))
}

/** [T, N, K] to N·K values. */
function meanOverTime(outputs: Tensor): Float64Array {
  const values = outputs.toFloat64Array()
  const mean = new Float64Array(values.length / T)
  for (const [i, value] of values.entries()) mean[i % mean.length]! += value / T
  return mean
}

/** Largest difference between two lists. */
function worst(got: Float64Array, expected: Float64Array): number {
  if (got.length !== expected.length) throw new Error(`expected ${expected.length} values, got ${got.length}`)
  return got.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i]!)), 0)
}
