// Tensors in and out: every dtype, what is rounded and how, views, conversions, the ends of their lives.

import { describe, expect, it } from 'vitest'
import { type DType, full, memoryStats, ones, Parameter, Tensor, tensor, zeros } from '../src/index.js'
import { expectClose, expectCode, expectSameBits } from './support/compare.js'
import { describeOnDevices } from './support/devices.js'
import { fromHalfBits, roundTo, toHalfBits } from './support/half.js'
import { normal } from './support/numbers.js'
import { EXACT } from './support/tolerances.js'

const SPECIAL = [
  0,
  -0,
  1,
  -1.5,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
  2 ** -149,
  1e-310,
]

/** Values where rounding is delicate: ties, overflow to infinity, subnormals, and what double rounding gets wrong. */
const DELICATE = [
  1 + 2 ** -11,
  1 + 2 ** -11 + 2 ** -40,
  1 + 3 * 2 ** -11,
  65504,
  65519.999,
  65520,
  -65520,
  2 ** -24,
  2 ** -25,
  2 ** -25 * 1.0000001,
  3 * 2 ** -26,
  2 ** -133,
  2 ** -134,
  1 + 2 ** -8,
  1 + 2 ** -8 + 2 ** -45,
  1 + 3 * 2 ** -8,
  3.3895e38,
  3.4e38,
  -1e308,
  ...SPECIAL,
]

describeOnDevices('a tensor gives back what it was given', (device) => {
  const arrays: [DType, { [index: number]: number | bigint; length: number } & ArrayBufferView][] = [
    ['float64', Float64Array.from([...SPECIAL, Math.PI, 5e-324])],
    ['float32', Float32Array.from([...SPECIAL, Math.PI])],
    ['uint8', Uint8Array.of(0, 1, 127, 128, 255)],
    ['int64', BigInt64Array.of(0n, -1n, 2n ** 53n + 1n, 2n ** 63n - 1n, -(2n ** 63n))],
    ['float16', Uint16Array.from({ length: 0x10000 }, (_, bits) => bits)],
    ['bfloat16', Uint16Array.from({ length: 0x10000 }, (_, bits) => bits)],
  ]
  for (const [dtype, data] of arrays) {
    it(`in ${dtype}, bit by bit`, () => {
      const value = tensor(data as Float32Array, [data.length], { dtype, device })
      expect([value.dtype, value.device, value.size, value.shape]).toEqual([
        dtype,
        device,
        data.length,
        [data.length],
      ])
      const out = value.toTypedArray()
      expect(out.constructor).toBe(data.constructor)
      expect(new Uint8Array(out.buffer)).toEqual(new Uint8Array(data.buffer as ArrayBuffer))
    })
  }

  it('where a typed array says its dtype by itself', () => {
    const dtypes = [Float64Array.of(1), Float32Array.of(1), Uint8Array.of(1), BigInt64Array.of(1n), [1]].map(
      (data) => tensor(data, [1], { device }).dtype,
    )
    expect(dtypes).toEqual(['float64', 'float32', 'uint8', 'int64', 'float32'])
    expectCode('ERR_DTYPE', () => tensor(Uint16Array.of(1), [1], { device }), 'float16 or bfloat16')
  })

  it('from a view into a larger buffer', () => {
    const buffer = Float32Array.of(9, 1, 2, 3, 9)
    expectClose('view', tensor(buffer.subarray(1, 4), [3], { device }).toFloat64Array(), [1, 2, 3], EXACT)
    const odd = new Uint8Array(new Uint8Array([7, 1, 2]).buffer, 1)
    expectClose('odd', tensor(odd, [2], { device }).toFloat64Array(), [1, 2], EXACT)
  })

  it('as a copy: neither the data given nor the data got is shared', () => {
    const data = Float32Array.of(1, 2)
    const value = tensor(data, [2], { device })
    data[0] = 5
    value.toTypedArray()[1] = 7
    value.toFloat64Array()[1] = 7
    expectClose('values', value.toFloat64Array(), [1, 2], EXACT)
  })

  it('without axes, and with no elements', () => {
    expect(tensor([3], [], { device }).item()).toBe(3)
    expect(tensor([3], [], { device }).shape).toEqual([])
    const empty = tensor([], [0, 4], { device })
    expect([empty.size, empty.toTypedArray().length, empty.reshape([2, 0]).shape]).toEqual([0, 0, [2, 0]])
  })
})

describeOnDevices('numbers are rounded once, to the nearest, ties to even', (device) => {
  for (const dtype of ['float32', 'float16', 'bfloat16'] as const) {
    it(`to ${dtype}, from numbers, from arrays and from float64 tensors`, () => {
      const values = [...DELICATE, ...normal(1, 200), ...normal(2, 200, 0, 1e4), ...normal(3, 200, 0, 1e-6)]
      const expected = values.map((value) => roundTo(value, dtype))
      const shape = [values.length]
      const ways = {
        numbers: tensor(values, shape, { dtype, device }),
        'a Float64Array': tensor(Float64Array.from(values), shape, { dtype, device }),
        'a float64 tensor': tensor(values, shape, { dtype: 'float64', device }).to(dtype),
      }
      for (const [way, value] of Object.entries(ways)) {
        expectClose(way, value.toFloat64Array(), expected, EXACT)
      }
    })
  }

  it('and half bits are those of the format', () => {
    for (const dtype of ['float16', 'bfloat16'] as const) {
      const bits = tensor(DELICATE, [DELICATE.length], { dtype, device }).toTypedArray()
      const numbers = DELICATE.map((value) => toHalfBits(value, dtype))
      DELICATE.forEach((value, i) => {
        if (Number.isNaN(value)) expect(fromHalfBits(Number(bits[i]), dtype)).toBeNaN()
        else expect(Number(bits[i]).toString(16), `${value}`).toBe(numbers[i]!.toString(16))
      })
    }
  })

  it('on every way from one dtype to another', () => {
    const dtypes: DType[] = ['float64', 'float32', 'float16', 'bfloat16', 'uint8', 'int64']
    // Held by every dtype exactly.
    const values = [0, 1, 2, 3, 100, 128]
    for (const from of dtypes) {
      for (const to of dtypes) {
        const value = tensor(values, [2, 3], { dtype: from, device }).to(to)
        expect([value.dtype, value.shape]).toEqual([to, [2, 3]])
        expectClose(`${from} to ${to}`, value.toFloat64Array(), values, EXACT)
      }
    }
  })

  it.skipIf(!('Float16Array' in globalThis))(
    'and a Float16Array is taken as it is (where the runtime has one)',
    () => {
      const Float16 = (globalThis as unknown as { Float16Array: { from(values: number[]): Float32Array } })
        .Float16Array
      const value = tensor(Float16.from([1, 2.5]), [2], { device })
      expect(value.dtype).toBe('float16')
      expectClose('values', value.toFloat64Array(), [1, 2.5], EXACT)
    },
  )
})

describeOnDevices('shapes', (device) => {
  const values = Float32Array.from({ length: 24 }, (_, i) => i)

  it('are read in row-major order and reshaped without moving a value', () => {
    const value = tensor(values, [2, 3, 4], { device })
    for (const [shape, expected] of [
      [
        [4, 6],
        [4, 6],
      ],
      [[-1], [24]],
      [
        [2, -1, 2],
        [2, 6, 2],
      ],
      [
        [24, 1, 1],
        [24, 1, 1],
      ],
    ]) {
      const view = value.reshape(shape!)
      expect(view.shape).toEqual(expected)
      expectClose('values', view.toFloat64Array(), values, EXACT)
    }
  })

  it('of a reshaped tensor share memory and keep it alive', () => {
    const value = tensor(values, [24], { device })
    const view = value.reshape([4, 6])
    value.copy_(zeros([24], { device }))
    expectClose('through the view', view.toFloat64Array(), new Float64Array(24), EXACT)
    value.dispose()
    expectClose('after the owner is gone', view.toFloat64Array(), new Float64Array(24), EXACT)
  })

  it('cannot be changed from outside', () => {
    const value = tensor(values, [24], { device })
    expect(() => (value.shape as number[]).push(1)).toThrow(TypeError)
    const shape = [4, 6]
    const other = tensor(values, shape, { device })
    shape[0] = 99
    expect(other.shape).toEqual([4, 6])
  })

  const refused: [string, () => unknown][] = [
    ['fewer values than elements', () => tensor([1, 2], [3], { device })],
    ['more values than elements', () => tensor([1, 2], [1], { device })],
    ['no value for a scalar', () => tensor([], [], { device })],
    ['fewer bits', () => tensor(Uint16Array.of(1), [2], { dtype: 'float16', device })],
    ['a negative extent', () => tensor([1], [-1], { device })],
    ['an extent by half', () => tensor([1], [1.5], { device })],
    ['an extent that is no number', () => tensor([], [Number.NaN], { device })],
    ['an extent without end', () => tensor([], [Number.POSITIVE_INFINITY, 0], { device })],
    ['more elements than can be counted', () => zeros([2 ** 40, 2 ** 40], { device })],
    ['a reshape to fewer', () => tensor([1, 2], [2], { device }).reshape([1])],
    ['a reshape that does not divide', () => tensor([1, 2, 3], [3], { device }).reshape([2, -1])],
    ['a reshape with two unknowns', () => tensor([1, 2], [2], { device }).reshape([-1, -1])],
    ['a reshape by half', () => tensor([1, 2], [2], { device }).reshape([1.5, 2])],
    ['item of many', () => tensor([1, 2], [2], { device }).item()],
    ['copying another shape', () => zeros([2, 3], { device }).copy_(ones([3, 2], { device }))],
  ]
  for (const [what, call] of refused) {
    it(`that do not fit are ERR_SHAPE: ${what}`, () => {
      expectCode('ERR_SHAPE', call)
    })
  }

  it('larger than the machine are ERR_OUT_OF_MEMORY, and the process goes on', () => {
    for (const shape of [[2 ** 46], [2 ** 20, 2 ** 26, 1]]) {
      const error = expectCode('ERR_OUT_OF_MEMORY', () => zeros(shape, { device }))
      expect(error.message.length).toBeGreaterThan(10)
    }
    expectClose('a small one', ones([3], { device }).toFloat64Array(), [1, 1, 1], EXACT)
  })
})

describeOnDevices('arguments of other kinds are refused', (device) => {
  const refused: [string, string, () => unknown][] = [
    ['ERR_ARGUMENT', 'text', () => tensor('1' as never, [1], { device })],
    ['ERR_ARGUMENT', 'nothing', () => tensor(undefined as never, [1], { device })],
    ['ERR_ARGUMENT', 'a DataView', () => tensor(new DataView(new ArrayBuffer(8)) as never, [1], { device })],
    ['ERR_DTYPE', 'an unknown dtype', () => tensor([1], [1], { dtype: 'complex64' as never, device })],
    ['ERR_DEVICE', 'an unknown device', () => tensor([1], [1], { device: 'cuda:x' as never })],
    ['ERR_DEVICE', 'a conversion to nowhere', () => tensor([1], [1], { device }).to('mps' as never)],
  ]
  for (const [code, what, call] of refused) {
    it(`with ${code}: ${what}`, () => {
      expectCode(code, call)
    })
  }
})

describe('the end of a tensor', () => {
  it('by dispose() makes every use ERR_DISPOSED, whether or not its shape had been asked for, and twice is once', () => {
    const uses: ((value: Tensor) => unknown)[] = [
      (value) => value.toTypedArray(),
      (value) => value.toFloat64Array(),
      (value) => value.to('float64'),
      (value) => value.reshape([2]),
      (value) => value.clone(),
      (value) => value.copy_(ones([2])),
      (value) => ones([2]).copy_(value),
    ]
    for (const known of [true, false]) {
      for (const use of uses) {
        const value = tensor([1, 2], [2])
        if (known) expect([value.shape, value.dtype]).toEqual([[2], 'float32'])
        value.dispose()
        value.dispose()
        expect(value.isDisposed).toBe(true)
        expectCode('ERR_DISPOSED', () => use(value), 'disposed')
      }
    }
  })

  it('comes when a using block is left, by an exception too', () => {
    let inner: Tensor | undefined
    const leave = (fail: boolean) => {
      using value = tensor([1], [1])
      inner = value
      expect(value.isDisposed).toBe(false)
      if (fail) throw new RangeError('on purpose')
    }
    leave(false)
    expect(inner?.isDisposed).toBe(true)
    expect(() => leave(true)).toThrow(RangeError)
    expect(inner?.isDisposed).toBe(true)
  })

  it('gives its memory back at once', () => {
    const before = memoryStats().allocated
    const large = full([1 << 20], 1)
    expect(memoryStats().allocated - before).toBeGreaterThanOrEqual(4 << 20)
    large.dispose()
    expect(memoryStats().allocated).toBe(before)
  })

  it('of another tensor does not disturb its neighbours', () => {
    const kept = tensor([1, 2], [2])
    const copy = kept.clone()
    for (let i = 0; i < 100; i++) full([2], i).dispose()
    expectSameBits('copy', copy, kept)
  })

  it('and what a tensor is shows in its text', async () => {
    const { inspect } = await import('node:util')
    const value = tensor([1, 2], [1, 2], { dtype: 'float16' })
    expect(inspect(value)).toMatch(/Tensor.*1, 2.*float16.*cpu/)
    value.dispose()
    expect(inspect(value)).toMatch(/disposed/)
    expect(Parameter.prototype).toBeInstanceOf(Tensor)
  })
})
