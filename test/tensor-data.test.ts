// tensor() takes numbers and nothing else: what is no number is refused, and never becomes NaN.
import { runInNewContext } from 'node:vm'
import { describe, expect, it } from 'vitest'
import { full, nn, ones, randperm, Tensor, tensor, zeros } from '../src/index.js'
import { expectCode } from './support/compare.js'

/** `[0, , 1]` */
const withHole = Object.assign(new Array(3), { 0: 0, 2: 1 })

const values = (x: Tensor) => [x.shape, [...x.toFloat64Array()]]

describe('tensor() works the shape out', () => {
  const cases: [what: string, data: unknown, shape: number[], numbers: number[]][] = [
    ['of an array', [1, 2, 3], [3], [1, 2, 3]],
    [
      'of nested arrays',
      [
        [1, 2],
        [3, 4],
        [5, 6],
      ],
      [3, 2],
      [1, 2, 3, 4, 5, 6],
    ],
    ['of three axes', [[[1], [2]]], [1, 2, 1], [1, 2]],
    ['of a typed array', Float64Array.of(1, 2), [2], [1, 2]],
    ['of a number', 7, [], [7]],
    ['of nothing', [], [0], []],
    ['of empty rows', [[], []], [2, 0], []],
  ]
  for (const [what, data, shape, numbers] of cases) {
    it(what, () => expect(values(tensor(data as never))).toEqual([shape, numbers]))
  }

  it('with options in its place', () => {
    expect(tensor([1, 2], { dtype: 'float64' }).dtype).toBe('float64')
    expect(tensor([1, 2], undefined as never, { dtype: 'float64' }).dtype).toBe('float64')
  })

  it('nested arrays may have their shape said, and no other', () => {
    expect(
      values(
        tensor(
          [
            [1, 2],
            [3, 4],
          ],
          [2, 2],
        ),
      ),
    ).toEqual([
      [2, 2],
      [1, 2, 3, 4],
    ])
    expectCode('ERR_ARGUMENT', () =>
      tensor(
        [
          [1, 2],
          [3, 4],
        ],
        [4],
      ),
    )
  })
})

describe('tensor() refuses what is no number', () => {
  const deep: unknown[] = []
  deep.push(deep)
  const cases: [what: string, data: unknown, words?: string][] = [
    ['a hole', withHole, 'got undefined'],
    ['an array of holes', new Array(2), '[0]'],
    ['undefined', [1, undefined], '[1]'],
    ['null', [1, null], 'got null'],
    ['a string', [1, '2'], "got '2'"],
    ['an object', [{}], 'got {}'],
    ['a symbol', [Symbol('x')], 'Symbol(x)'],
    ['ragged rows', [[1, 2], [3]], 'ragged'],
    ['a number among rows', [[1], 2], 'ragged'],
    ['a row among numbers', [1, [2]], 'got [2]'],
    [
      'rows of two depths',
      [
        [1, 2],
        [3, [4]],
      ],
      'got [4]',
    ],
    ['an array in itself', deep, 'nested'],
    ['a string for data', '12', "got '12'"],
    ['an ArrayBuffer', new ArrayBuffer(8), 'new Float32Array(buffer)'],
    ['a SharedArrayBuffer', new SharedArrayBuffer(8), 'new Float32Array(buffer)'],
    ['a DataView', new DataView(new ArrayBuffer(8)), 'new Float32Array(buffer)'],
    ['a tensor', ones([1]), 'got a Tensor'],
    ['nothing', undefined, 'got undefined'],
  ]
  for (const [what, data, words = ''] of cases) {
    it(what, () => expectCode('ERR_ARGUMENT', () => tensor(data as never), words))
  }
})

describe('integers', () => {
  it('booleans are 0 and 1, as in PyTorch', () => {
    expect(values(tensor([true, false]))).toEqual([[2], [1, 0]])
  })

  it('bigints are int64 and keep their digits', () => {
    const big = 2n ** 53n + 1n
    const x = tensor([big, -1n])
    expect([x.dtype, ...x.toTypedArray()]).toEqual(['int64', big, -1n])
    expect(tensor([1n, 2], { dtype: 'float64' }).toFloat64Array()).toEqual(Float64Array.of(1, 2))
    expect([...tensor([1, big], { dtype: 'int64' }).toTypedArray()]).toEqual([1n, big])
    expect([...tensor(BigUint64Array.of(big), { dtype: 'int64' } as never).toTypedArray()]).toEqual([big])
  })

  it('fractions are cut off, as in PyTorch', () => {
    expect(values(tensor([1.9, -1.9], { dtype: 'int64' }))).toEqual([[2], [1, -1]])
    expect(values(tensor([0.9, 255.9], { dtype: 'uint8' }))).toEqual([[2], [0, 255]])
  })

  const outside: [dtype: 'uint8' | 'int64', value: number | bigint][] = [
    ['uint8', 256],
    ['uint8', -1],
    ['uint8', Number.NaN],
    ['int64', Number.POSITIVE_INFINITY],
    ['int64', 2 ** 63],
    ['int64', 2n ** 63n],
    ['int64', -(2n ** 63n) - 1n],
  ]
  for (const [dtype, value] of outside) {
    it(`${value} is refused for ${dtype}`, () => {
      expectCode('ERR_ARGUMENT', () => tensor([value], { dtype }), 'range')
      if (typeof value === 'number') expectCode('ERR_ARGUMENT', () => full([1], value, { dtype }), dtype)
    })
  }
  it('2^64 of a BigUint64Array is refused, not wrapped', () => {
    expectCode('ERR_ARGUMENT', () => tensor(BigUint64Array.of(2n ** 64n - 1n), { dtype: 'int64' } as never))
  })
})

describe('typed arrays', () => {
  it('of another realm are taken', () => {
    expect(values(tensor(runInNewContext('Float32Array.of(1, 2)')))).toEqual([[2], [1, 2]])
    expect(values(tensor(runInNewContext('[[1, 2]]')))).toEqual([
      [1, 2],
      [1, 2],
    ])
  })

  it('over a SharedArrayBuffer are copied', () => {
    const shared = new Float32Array(new SharedArrayBuffer(8))
    shared.set([1, 2])
    const x = tensor(shared)
    shared.set([3, 4])
    expect(values(x)).toEqual([[2], [1, 2]])
  })

  it('whose buffer has been transferred are refused', () => {
    for (const data of [new Float32Array(1), new Int32Array(1)]) {
      structuredClone(data.buffer, { transfer: [data.buffer] })
      expectCode('ERR_DISPOSED', () => tensor(data, [1], { dtype: 'float32' }))
      expectCode('ERR_DISPOSED', () => nn.crossEntropy(ones([1, 2]), data))
    }
  })
})

describe('shapes', () => {
  it('may be typed arrays', () => {
    expect(ones(Int32Array.of(2, 3) as never).shape).toEqual([2, 3])
    expect(ones([4]).reshape(Uint8Array.of(2, 2) as never).shape).toEqual([2, 2])
  })

  it('may be written one by one where that is clear', () => {
    expect(ones(2, 3).shape).toEqual([2, 3])
    expect(zeros(2, { dtype: 'float64' }).dtype).toBe('float64')
    expect(ones([6]).reshape(2, -1).shape).toEqual([2, 3])
  })

  it('say what to write otherwise', () => {
    expectCode('ERR_SHAPE', () => full(2 as never, 1), 'such as [2]')
    expectCode('ERR_SHAPE', () => tensor([1, 2], 2 as never), 'such as [2]')
    expectCode('ERR_SHAPE', () => ones('2' as never), "got '2'")
    expectCode('ERR_SHAPE', () => ones(new Array(65).fill(1)), '64 axes')
  })
})

describe('labels of crossEntropy', () => {
  const logits = tensor([5, 0, 0, 0, 5, 0], [2, 3])
  const expected = nn.crossEntropy(logits, [0, 1]).loss

  it('may be any typed array, or bigints', () => {
    const arrays = [
      Int8Array,
      Uint8Array,
      Int16Array,
      Uint16Array,
      Int32Array,
      Uint32Array,
      Float32Array,
      Float64Array,
    ]
    for (const Labels of arrays) expect(nn.crossEntropy(logits, Labels.of(0, 1)).loss).toBe(expected)
    expect(nn.crossEntropy(logits, BigInt64Array.of(0n, 1n)).loss).toBe(expected)
    expect(nn.crossEntropy(logits, [0n, 1n]).loss).toBe(expected)
  })

  const wrong: unknown[] = [
    [0, undefined],
    withHole,
    [0, null],
    [0, '1'],
    [0, 0.5],
    [0, Number.NaN],
    Float32Array.of(0, 0.5),
    'ab',
    {},
    1,
    null,
    undefined,
  ]
  for (const [i, labels] of wrong.entries()) {
    it(`none is missing or something else (${i})`, () => {
      expectCode('ERR_ARGUMENT', () => nn.crossEntropy(logits, labels as never), 'labels')
    })
  }

  it('one-hot ones are told what to be', () => {
    expectCode('ERR_DTYPE', () => nn.crossEntropy(logits, ones([2, 3])), "labels.to('int64')")
  })

  it('logits are a tensor, and there are no options', () => {
    expectCode('ERR_ARGUMENT', () => nn.crossEntropy([1] as never, [0]), 'logits')
    expectCode('ERR_ARGUMENT', () =>
      Reflect.apply(nn.crossEntropy, null, [logits, [0, 1], { reduction: 'sum' }]),
    )
  })
})

it('randperm has an end, which V8 allows', () => {
  expectCode('ERR_ARGUMENT', () => randperm(2e8), 'n: expected')
})

it('is a Tensor', () => {
  expect(tensor([1])).toBeInstanceOf(Tensor)
})
