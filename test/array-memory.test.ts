// Tensors over the memory of typed arrays and typed arrays over that of tensors: nothing is copied, nothing is read
// after it has gone, and nothing is kept for longer than it is used.

import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { describe, expect, it } from 'vitest'
import {
  BatchNorm1d,
  BatchNorm2d,
  BatchNormThroughTime2d,
  cuda,
  type DType,
  emptyCache,
  full,
  memoryStats,
  NeuNorm,
  nn,
  ones,
  optim,
  Tensor,
  ThresholdDependentBatchNorm2d,
  tensor,
} from '../src/index.js'
import { collect, settle } from './support/collect.js'
import { expectCode, expectSameBits } from './support/compare.js'
import { normal } from './support/numbers.js'

const MEBIBYTE = 1 << 20
const allocated = () => memoryStats().allocated

/** Takes a buffer's memory away, as a transfer to another thread does. */
function transfer(data: { buffer: ArrayBufferLike }): ArrayBuffer {
  return structuredClone(data.buffer as ArrayBuffer, { transfer: [data.buffer as ArrayBuffer] })
}

describe('Tensor.fromTypedArray', () => {
  it('takes no memory and sees what is written to the array', () => {
    const data = new Float32Array(MEBIBYTE)
    const before = allocated()
    const x = Tensor.fromTypedArray(data, [4, MEBIBYTE / 4])
    expect(allocated() - before).toBe(0)
    data[MEBIBYTE - 1] = 7
    expect(x.toTypedArray()[MEBIBYTE - 1]).toBe(7)
    expect([x.shape, x.dtype, x.device]).toEqual([[4, MEBIBYTE / 4], 'float32', 'cpu'])
  })

  it('reads pieces of buffers, small arrays that V8 keeps in its heap, empty ones, and every dtype', () => {
    const data = Float32Array.from({ length: 10 }, (_, i) => i)
    expect([...Tensor.fromTypedArray(data.subarray(3, 7), [2, 2]).toTypedArray()]).toEqual([3, 4, 5, 6])
    const small = Tensor.fromTypedArray(Float32Array.of(1, 2), [2])
    collect()
    expect([...small.toTypedArray()]).toEqual([1, 2])
    const empty = Tensor.fromTypedArray(new Float32Array(0), [0, 3])
    expect([...empty.toTypedArray()]).toEqual([])
    expect([...empty.toFloat64Array()]).toEqual([])
    expect(empty.clone().shape).toEqual([0, 3])
    expect(empty.to('bfloat16').dtype).toBe('bfloat16')
    expect(new BatchNorm1d(3).eval().forward(empty).shape).toEqual([0, 3])
    // Bytes that are no whole number of elements lie behind the array.
    const odd = new Float32Array(new ArrayBuffer(13), 4, 2).fill(6)
    expect([...Tensor.fromTypedArray(odd, [2]).toTypedArray()]).toEqual([6, 6])
    const arrays: [DType, Parameters<typeof Tensor.fromTypedArray>[0], number[]][] = [
      ['float64', Float64Array.of(0.1, -2), [0.1, -2]],
      ['float16', Uint16Array.of(0x3c00, 0xc000), [1, -2]],
      ['bfloat16', Uint16Array.of(0x3f80, 0xc000), [1, -2]],
      ['uint8', Uint8Array.of(1, 255), [1, 255]],
      ['int64', BigInt64Array.of(-1n, 2n ** 40n), [-1, 2 ** 40]],
    ]
    for (const [dtype, array, values] of arrays) {
      const x = Tensor.fromTypedArray(array, [2], { dtype })
      expect(x.dtype).toBe(dtype)
      expect([...x.toFloat64Array()]).toEqual(values)
    }
  })

  it('gives the bits of a copy, forward and backward, in every kind of layer', () => {
    const shape = [2, 3, 4, 5, 5]
    const [x, dy] = [1, 2].map((seed) => Float32Array.from(normal(seed, 2 * 3 * 4 * 25))) as [
      Float32Array,
      Float32Array,
    ]
    const layers = [
      new ThresholdDependentBatchNorm2d(1, 0.5, 4),
      new NeuNorm(4, 5, 5, { stepMode: 'm' }),
      new nn.Conv2d(4, 4, 3, { padding: 1, stepMode: 'm' }),
      new nn.MaxPool2d(1, { stepMode: 'm' }),
      new nn.LIFNode({ stepMode: 'm' }),
    ]
    for (const layer of layers) {
      const run = (make: (data: Float32Array) => Tensor) => {
        layer.reset()
        layer.zeroGrad()
        const y = layer.forward(make(x))
        return [y, layer.backward(make(dy)), ...layer.parameters().map(({ grad }) => grad!.clone())]
      }
      const copied = run((data) => tensor(data, shape))
      const lent = run((data) => Tensor.fromTypedArray(data, shape))
      for (const [i, value] of copied.entries()) {
        expectSameBits(`${layer.constructor.name} ${i}`, lent[i]!, value)
      }
    }
  })

  it('keeps the array alive for as long as it or a recorded forward needs it, and no longer', async () => {
    const layer = new BatchNorm2d(4)
    let buffer: WeakRef<ArrayBufferLike>
    // In a function of its own, so that no local variable keeps anything.
    const forward = () => {
      const data = Float32Array.from(normal(3, 4 * 4 * 16))
      buffer = new WeakRef(data.buffer)
      layer.forward(Tensor.fromTypedArray(data, [4, 4, 4, 4])).dispose()
    }
    forward()
    memoryStats()
    await settle()
    expect(buffer!.deref()).toBeDefined()
    const twin = new BatchNorm2d(4)
    twin.forward(tensor(Float32Array.from(normal(3, 4 * 4 * 16)), [4, 4, 4, 4]))
    const dy = tensor(normal(4, 4 * 4 * 16), [4, 4, 4, 4], { dtype: 'float32' })
    expectSameBits('dx', layer.backward(dy), twin.backward(dy))
    collect()
    // Looks for tensors that have been collected.
    memoryStats()
    await settle()
    expect(buffer!.deref()).toBeUndefined()
  })

  it('is never written to', () => {
    const data = Float32Array.of(1, 2, 3)
    const x = Tensor.fromTypedArray(data, [3])
    expectCode('ERR_ARGUMENT', () => x.copy_(full([3], 5)), 'typed array', 'clone()')
    expect([...data]).toEqual([1, 2, 3])
    expect([
      ...x
        .clone()
        .copy_(full([3], 5))
        .toTypedArray(),
    ]).toEqual([5, 5, 5])
  })

  it('refuses to read a buffer that has been transferred, also in a backward, and leaves the layer as it was', () => {
    const data = Float32Array.from(normal(5, 32))
    const x = Tensor.fromTypedArray(data, [2, 4, 2, 2])
    const layer = new BatchNorm2d(4)
    const y = layer.forward(x)
    const moved = transfer(data)
    for (const read of [() => x.toTypedArray(), () => x.clone(), () => layer.forward(x)]) {
      expectCode('ERR_DISPOSED', read, 'transferred')
    }
    expectCode('ERR_DISPOSED', () => layer.backward(y), 'BatchNorm2d', 'transferred')
    expect(layer.pendingForwards).toBe(1)
    expect(layer.stateDict().num_batches_tracked!.item()).toBe(1)
    expect(layer.parameters().map(({ grad }) => grad)).toEqual([null, null])
    // The new owner's memory is whole.
    expect(new Float32Array(moved)[31]).toBe(Math.fround(normal(5, 32)[31]!))
  })

  it('refuses to read a buffer that has shrunk, and reads one that has grown', () => {
    const Resizable = ArrayBuffer as unknown as new (
      length: number,
      options: { maxByteLength: number },
    ) => ArrayBuffer & { resize(length: number): void }
    const buffer = new Resizable(64, { maxByteLength: 1 << 16 })
    const x = Tensor.fromTypedArray(new Float32Array(buffer, 16, 4).fill(3), [4])
    buffer.resize(1 << 16)
    expect([...x.toTypedArray()]).toEqual([3, 3, 3, 3])
    buffer.resize(28)
    expectCode('ERR_DISPOSED', () => x.toTypedArray(), '28 bytes are left', '32 are needed')
    buffer.resize(32)
    expect(x.size).toBe(4)
    expect([...x.toTypedArray()]).toEqual([3, 3, 3, 0])
  })

  it('refuses shared memory, data to be converted, and a number of values that does not fit', () => {
    const shared = new Float32Array(new SharedArrayBuffer(16))
    expectCode('ERR_ARGUMENT', () => Tensor.fromTypedArray(shared, [4]), 'SharedArrayBuffer', 'tensor()')
    const wide = new Float64Array(4)
    expectCode(
      'ERR_DTYPE',
      () => Tensor.fromTypedArray(wide, [4], { dtype: 'float32' }),
      'float32',
      'tensor()',
    )
    expectCode('ERR_DTYPE', () => Tensor.fromTypedArray(new Uint16Array(4), [4]))
    expectCode('ERR_SHAPE', () => Tensor.fromTypedArray(wide, [5]), 'expected 5 values')
    expectCode('ERR_ARGUMENT', () => Tensor.fromTypedArray({} as Float32Array, [1]), 'typed array')
    expectCode('ERR_DTYPE', () => Tensor.fromTypedArray([1] as unknown as Float32Array, [1]))
  })
})

describe('asTypedArray', () => {
  it('is the memory of the tensor: written on either side, seen on the other', () => {
    const x = full([2, 3], 1)
    const array = x.asTypedArray()
    const again = x.asTypedArray()
    expect([...array]).toEqual([1, 1, 1, 1, 1, 1])
    array[4] = 9
    expect([...x.toTypedArray()]).toEqual([1, 1, 1, 1, 9, 1])
    x.copy_(full([2, 3], 5))
    expect([...array]).toEqual([5, 5, 5, 5, 5, 5])
    expect([...again]).toEqual([5, 5, 5, 5, 5, 5])
    expect(again.buffer).toBe(array.buffer)
  })

  it('of a parameter follows training, and training follows it', () => {
    const layer = new nn.Linear(3, 1, { bias: false })
    const weight = layer.weight.asTypedArray() as Float32Array
    weight.set([1, 2, 3])
    const x = tensor([1, 10, 100], [1, 3])
    expect(layer.forward(x).item()).toBe(321)
    layer.backward(ones([1, 1]))
    new optim.SGD(layer.parameters(), { lr: 1 }).step()
    expect([...weight]).toEqual([0, -8, -97])
    const norm = new BatchNorm2d(2)
    const mean = norm.namedBuffers()[0]![1].asTypedArray()
    norm.forward(tensor([2, 4, 6, 8], [2, 2, 1, 1]))
    expect([...mean]).toEqual([Math.fround(0.4), Math.fround(0.6)])
  })

  it('has the type of the dtype, and is empty for an empty tensor', () => {
    const names = ['float64', 'float32', 'float16', 'uint8', 'int64'].map(
      (dtype) => full([2], 1, { dtype: dtype as DType }).asTypedArray().constructor.name,
    )
    expect(names).toEqual(['Float64Array', 'Float32Array', 'Uint16Array', 'Uint8Array', 'BigInt64Array'])
    expect(full([0, 2], 1).asTypedArray().length).toBe(0)
  })

  it('is a view of a row where the tensor is one', () => {
    const [w0, w1] = new BatchNormThroughTime2d(2, 3).parameters()
    w1!.asTypedArray()[2] = 4
    expect([...w1!.toTypedArray()]).toEqual([1, 1, 4])
    expect([...w0!.toTypedArray()]).toEqual([1, 1, 1])
  })

  it('outlives the tensor, whose block of the pool is free from the first call on', () => {
    const before = allocated()
    const x = full([MEBIBYTE], 3)
    expect(allocated() - before).toBe(4 * MEBIBYTE)
    const array = x.asTypedArray()
    expect(allocated() - before).toBe(0)
    x.dispose()
    emptyCache()
    expect(array[MEBIBYTE - 1]).toBe(3)
  })

  it('goes back in without a copy, as the same memory', () => {
    const x = full([8], 2)
    const back = Tensor.fromTypedArray(x.asTypedArray(), [2, 4])
    back.copy_(full([2, 4], 7))
    expect([...x.toTypedArray()]).toEqual(Array(8).fill(7))
    x.dispose()
    expect(back.toTypedArray()[5]).toBe(7)
    expect(back.asTypedArray().buffer).toBe(back.asTypedArray().buffer)
  })

  it('goes back in as another dtype: what is copied onto itself is read first', () => {
    const x = tensor([1, 1, 1, 1, 1, 1, 1, 1], [8])
    const bits = new Uint16Array(x.asTypedArray().buffer, 0, 8)
    const expected = Tensor.fromTypedArray(bits.slice(), [8], { dtype: 'bfloat16' }).to('float32')
    x.copy_(Tensor.fromTypedArray(bits, [8], { dtype: 'bfloat16' }))
    expect(x.toTypedArray()).toEqual(expected.toTypedArray())
  })

  it.each([
    ['SGD', optim.SGD],
    ['Adam', optim.Adam],
  ])('of a parameter is no gradient of it for %s', (_, Optimizer) => {
    const layer = new nn.Linear(2, 2, { bias: false })
    const values = layer.weight.asTypedArray()
    const before = [...values]
    layer.weight.grad = Tensor.fromTypedArray(values, [2, 2])
    expectCode('ERR_ARGUMENT', () => new Optimizer([layer.weight]).step(), 'memory of its own')
    expect([...values]).toEqual(before)
  })

  it.each(['running_mean', 'running_var'])('of %s is no input of a forward that moves it', (name) => {
    const layer = new BatchNorm1d(4)
    const buffer = layer.namedBuffers().find(([own]) => own === name)![1]
    // A block of the pool has room for more than four values.
    const x = Tensor.fromTypedArray(new Float32Array(buffer.asTypedArray().buffer, 0, 8), [2, 4])
    const before = layer.stateDict()
    expectCode('ERR_ARGUMENT', () => layer.forward(x), 'BatchNorm1d', 'input', name)
    const after = layer.stateDict()
    for (const key of Object.keys(before)) expectSameBits(key, after[key]!, before[key]!)
    expect(layer.eval().forward(x).shape).toEqual([2, 4])
  })

  it('of a loop that never yields is left to the collector', () => {
    const sum = { value: 0 }
    for (let i = 0; i < 2000; i++) {
      const x = full([MEBIBYTE / 4], i)
      sum.value += x.asTypedArray()[i] as number
      x.dispose()
    }
    expect(sum.value).toBe((2000 * 1999) / 2)
    expect(process.memoryUsage().rss).toBeLessThan(1500 * MEBIBYTE)
  })

  it('has memory that stays the tensor’s: no thread gets it', () => {
    const x = full([4], 1)
    const array = x.asTypedArray()
    const { buffer } = array
    // Node 20 copies what is not to be transferred, later ones throw.
    try {
      new Float32Array(structuredClone(buffer, { transfer: [buffer as ArrayBuffer] })).fill(4)
    } catch (error) {
      expect((error as Error).name).toBe('DataCloneError')
    }
    for (const name of ['transfer', 'transferToFixedLength']) {
      const transfer = (buffer as unknown as Record<string, ((length?: number) => ArrayBuffer) | undefined>)[
        name
      ]
      if (!transfer) continue
      const copy = new Float32Array(transfer.call(buffer))
      copy.fill(5)
      expect(copy.length).toBe(x.asTypedArray().buffer.byteLength / 4)
      expect(new Float32Array(transfer.call(buffer, 8))).toEqual(Float32Array.of(1, 1))
    }
    expect([...x.toTypedArray()]).toEqual([1, 1, 1, 1])
  })

  it('leaves the tensor unreadable where its memory has gone all the same', () => {
    const { transfer } = ArrayBuffer.prototype as { transfer?: () => ArrayBuffer }
    if (!transfer) return
    const x = full([4], 1)
    transfer.call(x.asTypedArray().buffer)
    expectCode('ERR_DISPOSED', () => x.toTypedArray(), 'transferred')
    expectCode('ERR_DISPOSED', () => x.copy_(full([4], 2)), 'transferred')
  })

  it.skipIf(!cuda.isAvailable())('throws on a CUDA device', () => {
    expectCode('ERR_DEVICE', () => full([2], 1, { device: 'cuda' }).asTypedArray(), "to('cpu')")
  })
})

describe('take', () => {
  it('uses the tensor up and leaves its memory to the array, which gives it back when it is collected', async () => {
    await settle()
    const before = allocated()
    const make = () => {
      const x = full([MEBIBYTE], 3)
      const array = x.take()
      expect(x.isDisposed).toBe(true)
      return array
    }
    const keep = { array: make() as unknown }
    emptyCache()
    await settle()
    expect(allocated() - before).toBe(4 * MEBIBYTE)
    expect((keep.array as Float32Array)[MEBIBYTE - 1]).toBe(3)
    keep.array = null
    await settle()
    expect(allocated() - before).toBe(0)
  })

  it('copies memory that another tensor or an array shares', () => {
    const x = full([4], 1)
    const view = x.reshape([2, 2])
    x.take().fill(5 as never)
    expect([...view.toTypedArray()]).toEqual([1, 1, 1, 1])
    const array = view.asTypedArray()
    view.take().fill(5 as never)
    expect([...array]).toEqual([1, 1, 1, 1])
  })

  it('in a loop that never yields holds no more than 256 MiB, and all of it is given back afterwards', async () => {
    await settle()
    const before = allocated()
    const sum = { value: 0 }
    for (let i = 0; i < 400; i++) sum.value += full([MEBIBYTE / 4], i).take()[i] as number
    expect(sum.value).toBe((400 * 399) / 2)
    expect(allocated() - before).toBeGreaterThan(200 * MEBIBYTE)
    expect(allocated() - before).toBeLessThanOrEqual(256 * MEBIBYTE)
    await settle()
    expect(allocated()).toBeLessThanOrEqual(before)
  })
})

describe('in a worker thread', () => {
  it('tensors over arrays live and end with it, and arrays over tensors are their memory', async () => {
    const script = fileURLToPath(new URL('./support/worker-array-memory.mjs', import.meta.url))
    const before = allocated()
    for (let i = 0; i < 3; i++) {
      const worker = new Worker(script)
      const message = await new Promise((resolve, reject) => {
        worker.once('message', resolve)
        worker.once('error', reject)
      })
      expect(message).toEqual({ pending: 1, array: [2, 1, 1, 1], tensor: [2, 1, 1, 1] })
      const code = await new Promise((resolve) => worker.once('exit', resolve))
      expect(code).toBe(0)
    }
    expect(allocated() - before).toBe(0)
  })
})
