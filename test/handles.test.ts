// What JavaScript holds of native values: numbers that are never used again, which no object takes over from another.

import { describe, expect, it } from 'vitest'
import { loadAddon } from '../src/addon.js'
import {
  BatchNorm1d,
  CudaGraph,
  full,
  memoryStats,
  nn,
  Parameter,
  Tensor,
  tensor,
  zeros,
} from '../src/index.js'
import { collect } from './support/collect.js'
import { expectCode } from './support/compare.js'

const addon = loadAddon()
const AnyTensor = Tensor as unknown as new (...args: unknown[]) => Tensor

describe('a handle', () => {
  it('is never used again', () => {
    const seen = new Set<number>()
    for (let i = 0; i < 5000; i++) {
      const x = zeros([1])
      expect(seen.has(x.id)).toBe(false)
      seen.add(x.id)
      x.dispose()
    }
  })

  it('that has been freed names nothing, whatever has been made since', () => {
    const x = zeros([1])
    const { id } = x
    x.dispose()
    const others = Array.from({ length: 100 }, () => full([3], 7))
    for (const call of [
      () => addon.tensorShape(id),
      () => addon.tensorFill(id, 1),
      () => addon.tensorReshape(id, [1]),
      () => addon.normBackward({}, id, id, 0, 0, 0, false),
    ]) {
      expect(call).toThrow('disposed')
    }
    addon.free(id)
    expect(others.every((other) => other.toTypedArray()[2] === 7)).toBe(true)
  })

  it.each([-1, 0, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, 2 ** 60])('is not %f', (id) => {
    expect(() => addon.tensorShape(id)).toThrow('disposed')
    addon.free(id)
  })

  it('of a value that has an owner is not given to another', async () => {
    const layer = new BatchNorm1d(2)
    const x = tensor([1, 2, 3, 4], [2, 2])
    const before = [...layer.forward(x).toTypedArray()]
    for (let id = 0; id < 50; id++) expectCode('ERR_ARGUMENT', () => new AnyTensor(id), 'tensor(data, shape)')
    for (let i = 0; i < 3; i++) {
      collect()
      await new Promise((resolve) => setTimeout(resolve, 2))
    }
    memoryStats()
    for (let i = 0; i < 3; i++) full([1, 2], 77)
    expect([...layer.forward(x).toTypedArray()]).toEqual(before)
  })

  it('is not had by constructing a class that the library makes', () => {
    const classes = [Tensor, Parameter, CudaGraph, nn.LossAndGrad].filter(Boolean)
    for (const Class of classes as unknown as (new (
      ...args: unknown[]
    ) => unknown)[]) {
      for (const id of [1, 1000, '1', [1, 2]]) expectCode('ERR_ARGUMENT', () => new Class(id))
    }
  })
})

describe('a vjp after its module has been disposed of', () => {
  it.each([true, false])('throws and takes nothing from another layer (affine: %s)', (affine) => {
    const x = tensor([10, 20, 30, 100], [4, 1])
    const dy = tensor([1, 0, 0, 0], [4, 1])
    const [layer, other] = [new BatchNorm1d(1, { affine }), new BatchNorm1d(1, { affine })]
    const { backward } = layer.vjp(tensor([1, 2, 3, 4], [4, 1]))
    layer.dispose()
    other.forward(x)
    expectCode('ERR_DISPOSED', () => backward(dy))
    expect(other.pendingForwards).toBe(1)
    expect([...other.backward(dy).toTypedArray()].every(Number.isFinite)).toBe(true)
  })
})

describe('the addon', () => {
  it('reads every argument before it takes a slice of memory', () => {
    const data = new Float64Array(1 << 16).fill(1.5)
    const shape = [0]
    Object.defineProperty(shape, 0, {
      get() {
        structuredClone(data.buffer, { transfer: [data.buffer] })
        return 1 << 16
      },
    })
    expect(() => addon.tensorFromNumbers(shape, 'float64', 'cpu', data)).toThrow('expected 65536 values')
  })
})
