// @vitest-environment jsdom
// A test suite of a front end: window and document are there, and the typed arrays may be those of another realm.

import { createContext, runInContext } from 'node:vm'
import { describe, expect, it } from 'vitest'
import { BatchNorm1d, nn, optim, Tensor, tensor } from '../src/index.js'

const context = createContext({})
/** A value of another realm, as a jsdom window or Jest has them. */
const foreign = (expression: string) => runInContext(expression, context)

describe('with the globals of a browser', () => {
  it('is loaded, computes and trains', () => {
    expect('document' in globalThis && 'window' in globalThis).toBe(true)
    const norm = new BatchNorm1d(1)
    const y = norm.forward(tensor(new Float32Array([1, 3]), [2, 1]))
    expect(y).toBeInstanceOf(Tensor)
    expect(y.toFloat64Array()[1]).toBeCloseTo(1, 4)
    norm.backward(tensor(new Float32Array([1, 2]), [2, 1]))
    new optim.SGD(norm.parameters(), { lr: 0.1 }).step()
    expect(norm.stateDict().bias!.toFloat64Array()[0]).toBeCloseTo(-0.3, 6)
  })
})

describe('values of another realm', () => {
  it.each([
    ['Float64Array', 'float64'],
    ['Float32Array', 'float32'],
    ['Uint8Array', 'uint8'],
    ['Uint8ClampedArray', 'uint8'],
    ['Int32Array', 'float32'],
    ['Array', 'float32'],
  ] as const)('%s.of(1, 2, 4) makes a tensor of %s', (kind, dtype) => {
    const data = foreign(`${kind}.of(1, 2, 4)`)
    expect(data).not.toBeInstanceOf(Reflect.get(globalThis, kind))
    const made = tensor(data, [3], { dtype })
    expect([...made.toFloat64Array()]).toEqual([1, 2, 4])
    expect(made.dtype).toBe(dtype)
  })

  it('BigInt64Array holds labels, and so may a foreign array', () => {
    const logits = tensor([1, 0, 0, 1], [2, 2])
    const expected = nn.crossEntropy(logits, [0, 1]).loss
    expect(nn.crossEntropy(logits, tensor(foreign('BigInt64Array.of(0n, 1n)'), [2])).loss).toBe(expected)
    for (const labels of ['[0, 1]', 'Int32Array.of(0, 1)', 'Uint8Array.of(0, 1)'])
      expect(nn.crossEntropy(logits, foreign(labels)).loss, labels).toBe(expected)
  })

  it('memory is shared without a copy', () => {
    const data = foreign('new Float32Array([1, 2])')
    const shared = Tensor.fromTypedArray(data, [2])
    data[0] = 5
    expect([...shared.toFloat64Array()]).toEqual([5, 2])
  })

  it('options and shapes may be foreign too', () => {
    const norm = new BatchNorm1d(2, foreign("({ eps: 0.5, stepMode: 'm' })"))
    expect(norm.eps).toBe(0.5)
    expect(norm.stepMode).toBe('m')
    expect(tensor([1, 2], foreign('[2, 1]')).shape).toEqual([2, 1])
  })

  it('a DataView is refused as one', () => {
    const views = [new DataView(new ArrayBuffer(8)), foreign('new DataView(new ArrayBuffer(8))')]
    const messages = views.map((view) => {
      try {
        tensor(view as never, [1])
      } catch (error) {
        return (error as Error).message
      }
      return 'taken'
    })
    expect(messages[0]).toMatch(/expected .*(array|numbers)/)
    expect(messages[1]).toBe(messages[0])
  })
})
