// Classes and functions have the names that they are imported by, and say them: of a value, of an error, of a layer.
import assert from 'node:assert/strict'
import { inspect } from 'node:util'
import * as spikenorm from 'spikenorm'

function compareNames(exported, path) {
  for (const [name, value] of Object.entries(exported)) {
    if (typeof value === 'function') assert.equal(value.name, name, `${path}.${name}`)
    else if (typeof value === 'object' && value !== null) compareNames(value, `${path}.${name}`)
  }
}
compareNames(spikenorm, 'spikenorm')
assert.match(inspect(spikenorm.ones([1])), /^Tensor \{/)
assert.match(inspect(new spikenorm.BatchNorm2d(1).parameters()[0]), /^Parameter \{/)
const net = new spikenorm.nn.Sequential(new spikenorm.nn.Linear(2, 1))
assert.throws(
  () => net.forward(spikenorm.ones([1, 3])),
  (error) =>
    /^SpikenormError: /.test(error.stack) &&
    /Sequential|Linear/.test(error.message) &&
    !/\b_\w/.test(error.message),
)
