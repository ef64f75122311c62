// Cross entropy through the public API.

import { expect, it } from 'vitest'
import { nn, tensor } from '../../src/index.js'
import { centralDifferences, DIFFERENCE_TOLERANCE, expectClose, expectCode, noise, noisy } from './support.js'

const LABELS = [2, 0, 3]

it.each([[[3, 4]], [[5, 3, 4]]])('the gradient of logits %j is that of central differences', (shape) => {
  const logits = noisy(1, shape)
  const { grad } = nn.crossEntropy(logits, LABELS)
  const loss = (x: Float64Array) => Float64Array.of(nn.crossEntropy(tensor(x, shape), LABELS).loss)
  const differences = centralDifferences(logits.toFloat64Array(), Float64Array.of(1), loss)
  expectClose('grad', grad.toFloat64Array(), differences, DIFFERENCE_TOLERANCE)
})

it('labels may be an array or a tensor of int64 or uint8', () => {
  const logits = noisy(1, [3, 4], 'float32')
  const [want, ...others] = [
    LABELS,
    tensor(LABELS, [3], { dtype: 'int64' }),
    tensor(LABELS, [3], { dtype: 'uint8' }),
  ].map((labels) => {
    const { loss, grad } = nn.crossEntropy(logits, labels)
    return { loss, dtype: grad.dtype, grad: [...grad.toFloat64Array()] }
  })
  expect(want?.dtype).toBe('float32')
  for (const other of others) expect(other).toEqual(want)
})

it('logits over time are decoded by their mean', () => {
  const values = noise(1, 24)
  const mean = Float64Array.from({ length: 12 }, (_, i) => (values[i]! + values[i + 12]!) / 2)
  const over = nn.crossEntropy(tensor(values, [2, 3, 4]), LABELS)
  const decoded = nn.crossEntropy(tensor(mean, [3, 4]), LABELS)
  expect(over.loss).toBe(decoded.loss)
  expect([...over.grad.toFloat64Array().slice(12)]).toEqual(
    [...decoded.grad.toFloat64Array()].map((g) => g / 2),
  )
})

it('correct counts the samples whose label has the largest logit, the first of equals', () => {
  const logits = tensor([0, 2, 1, 5, 5, 5, 0, 0, 0, 1, 2, 3], [4, 3])
  expect(nn.crossEntropy(logits, [1, 0, 1, 2]).correct).toBe(3)
  expect(nn.crossEntropy(logits, [0, 1, 2, 1]).correct).toBe(0)
  expect(nn.crossEntropy(tensor([9, 0, 0, 1, 0, 3], [3, 1, 2]), [0]).correct).toBe(1)
})

it('what does not fit is refused by name', () => {
  const logits = noisy(1, [3, 4])
  expectCode('ERR_SHAPE', () => nn.crossEntropy(noisy(1, [3]), LABELS), 'crossEntropy: logits')
  expectCode('ERR_SHAPE', () => nn.crossEntropy(logits, [1, 2]), 'labels: expected shape [3]')
  expectCode('ERR_ARGUMENT', () => nn.crossEntropy(logits, [1, 2, 4]), 'got 4 for sample 2')
  expectCode('ERR_ARGUMENT', () => nn.crossEntropy(logits, [1, 2, -1]), 'got -1')
  expectCode('ERR_ARGUMENT', () => nn.crossEntropy(logits, [1, 2, 0.5]), '0.5')
  expectCode('ERR_ARGUMENT', () => nn.crossEntropy(logits, 'abc' as never), 'labels')
  expectCode('ERR_DTYPE', () => nn.crossEntropy(logits, noisy(1, [3])), 'int64 or uint8')
})
