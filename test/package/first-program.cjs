// A first program of a user, in CommonJS.
const assert = require('node:assert/strict')
const { BatchNorm2d, SpikenormError, tensor } = require('spikenorm')

const norm = new BatchNorm2d(1, { stepMode: 'm' })
const y = norm.forward(tensor(new Float32Array([1, 3]), [2, 1, 1, 1, 1]))
for (const [at, value] of [-1, 1].entries()) assert.ok(Math.abs(y.toFloat64Array()[at] - value) < 1e-4)
assert.throws(
  () => new BatchNorm2d(-1),
  (error) => error instanceof SpikenormError && error.code === 'ERR_ARGUMENT',
)
