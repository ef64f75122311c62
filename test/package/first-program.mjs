// A first program of a user, as an ES module: one training step and an inference, with numbers that are known.
import assert from 'node:assert/strict'
import { nn, noGrad, optim, SpikenormError, Tensor, ThresholdDependentBatchNorm2d, tensor } from 'spikenorm'

const norm = new ThresholdDependentBatchNorm2d(1, 2, 2) // alpha, vTh, numFeatures
const x = tensor(new Float32Array([1, 3, 5, 9]), [2, 1, 2, 1, 1]) // [T, N, C, H, W]: channel 0 is 1, 5, channel 1 is 3, 9
const y = norm.forward(x)
assert.ok(y instanceof Tensor)
// Two values of a channel normalise to -1 and 1, times alpha·vTh.
for (const [at, value] of [-2, -2, 2, 2].entries()) assert.ok(Math.abs(y.toFloat64Array()[at] - value) < 1e-5)
norm.backward(tensor(new Float32Array([1, 2, 3, 5]), [2, 1, 2, 1, 1]))
const { bias } = Object.fromEntries(norm.namedParameters())
assert.deepEqual([...bias.grad.toFloat64Array()], [4, 7])
new optim.SGD(norm.parameters(), { lr: 0.1 }).step()
assert.ok(Math.abs(bias.toFloat64Array()[0] + 0.4) < 1e-6)
norm.eval()
noGrad(() => norm.forward(x))
assert.deepEqual(new nn.LIFNode().forward(tensor([4, 0], [1, 2])).toFloat64Array(), new Float64Array([1, 0]))
assert.throws(
  () => norm.forward(tensor([1, 2], [2])),
  (error) => error instanceof SpikenormError && error.code === 'ERR_SHAPE',
)
