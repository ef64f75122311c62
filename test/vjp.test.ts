// module.vjp(x): the backward of one forward, whenever it is called, gives what backward() gives where forwards and
// backwards are nested; what is never called costs nothing.

import { describe, expect, it } from 'vitest'
import {
  BatchNorm2d,
  BatchNormThroughTime2d,
  type Module,
  memoryStats,
  NeuNorm,
  nn,
  TemporalEffectiveBatchNorm2d,
  type Tensor,
  tensor,
} from '../src/index.js'
import { collect } from './support/collect.js'
import { expectCode, expectSameBits } from './support/compare.js'
import { Tree } from './support/modules.js'
import { normal } from './support/numbers.js'

const [T, N, C, H, W] = [2, 3, 4, 5, 5] as const
const input = (seed: number, stepMode: 's' | 'm') =>
  tensor(
    normal(seed, (stepMode === 'm' ? T : 1) * N * C * H * W),
    [...(stepMode === 'm' ? [T] : []), N, C, H, W],
    {
      dtype: 'float32',
    },
  )

/** dx and the parameters' gradients; those are taken away. */
function gradientsOf(module: Module, dx: Tensor): Tensor[] {
  const all = [dx.clone(), ...module.parameters().flatMap(({ grad }) => grad?.clone() ?? [])]
  module.zeroGrad()
  return all
}

function expectSame(label: string, got: Tensor[], expected: Tensor[]): void {
  expect(got.length).toBe(expected.length)
  for (const [i, value] of expected.entries()) expectSameBits(`${label} ${i}`, got[i]!, value)
}

const modules: [string, () => Module, 's' | 'm'][] = [
  ['BatchNorm', () => new BatchNorm2d(C), 's'],
  ['TEBN', () => new TemporalEffectiveBatchNorm2d(T, C), 'm'],
  ['BNTT', () => new BatchNormThroughTime2d(2 * T, C, { stepMode: 'm' }), 'm'],
  ['convolution', () => new nn.Conv2d(C, C, 3, { padding: 1, stepMode: 'm' }), 'm'],
  [
    'a container',
    () =>
      new nn.Sequential(
        new nn.Residual(new BatchNorm2d(C, { stepMode: 'm' })),
        new nn.MaxPool2d(1, { stepMode: 'm' }),
        new nn.Flatten({ stepMode: 'm' }),
      ),
    'm',
  ],
]

describe('the backward of vjp belongs to its own forward', () => {
  for (const [name, make, stepMode] of modules) {
    it(`of ${name}: two forwards, the earlier one's first`, () => {
      const module = make()
      const [x1, x2] = [input(1, stepMode), input(2, stepMode)]
      // The same two forwards with backward(), which takes the later one first.
      const twin = make()
      twin.loadStateDict(module.stateDict())
      const [y1, y2] = [twin.forward(x1), twin.forward(x2)]
      const expected2 = gradientsOf(twin, twin.backward(y2))
      const expected1 = gradientsOf(twin, twin.backward(y1))

      const [first, second] = [module.vjp(x1), module.vjp(x2)]
      expectSameBits('y of the first', first.y, y1)
      expectSameBits('y of the second', second.y, y2)
      expect(module.modules().map(({ pendingForwards }) => pendingForwards)).toEqual(
        module.modules().map(() => 0),
      )
      expectSame('first', gradientsOf(module, first.backward(y1)), expected1)
      expectSame('second', gradientsOf(module, second.backward(y2)), expected2)
    })
  }

  for (const [name, make] of [
    ['NeuNorm', () => new NeuNorm(C, H, W)],
    ['neurons in a container', () => new Tree({ a: new nn.LIFNode(), b: new nn.IFNode() })],
  ] as [string, () => Module][]) {
    it(`of ${name}: the state's gradient flows back through the calls`, () => {
      const module = make()
      const twin = make()
      twin.loadStateDict(module.stateDict())
      const xs = [1, 2, 3].map((seed) => input(seed, 's'))
      const ys = xs.map((x) => twin.forward(x))
      const expected = [2, 1, 0].map((i) => gradientsOf(twin, twin.backward(ys[i]!)))
      const calls = xs.map((x) => module.vjp(x))
      for (const [at, i] of [2, 1, 0].entries()) {
        expectSame(`call ${i}`, gradientsOf(module, calls[i]!.backward(ys[i]!)), expected[at]!)
      }
      // Without the later calls there is less to it: the comparison can tell.
      module.reset()
      const again = xs.map((x) => module.vjp(x))
      const alone = again[0]!.backward(ys[0]!)
      expect([...alone.toTypedArray()]).not.toEqual([...expected[2]![0]!.toTypedArray()])
    })
  }

  it('leaves what backward() is waiting for alone', () => {
    const module = new BatchNorm2d(C)
    const x = input(1, 's')
    const y = module.forward(x)
    const other = module.vjp(input(2, 's'))
    expect(module.pendingForwards).toBe(1)
    other.backward(other.y)
    expect(module.pendingForwards).toBe(1)
    module.zeroGrad()
    const twin = new BatchNorm2d(C)
    twin.forward(x)
    expectSameBits('dx', module.backward(y), twin.backward(y))
  })

  it('records in eval mode, with the running statistics', () => {
    const module = new BatchNorm2d(C).eval()
    const { y, backward } = module.vjp(input(1, 's'))
    const dx = backward(y).toTypedArray()
    const scale = 1 / Math.sqrt(1 + 1e-5)
    const values = y.toTypedArray()
    expect(dx[7]).toBeCloseTo((values[7] as number) * scale, 6)
    expect(module.stateDict().num_batches_tracked!.item()).toBe(0)
  })

  it('is called once; one that throws has taken nothing', () => {
    const module = new nn.Sequential(new BatchNorm2d(C))
    const { y, backward } = module.vjp(input(1, 's'))
    expectCode('ERR_SHAPE', () => backward(tensor([1], [1])), 'dy')
    expect(module.parameters().map(({ grad }) => grad)).toEqual([null, null])
    backward(y)
    expectCode('ERR_NO_FORWARD', () => backward(y), 'Sequential', 'before')
  })

  it('of a forward that throws does not exist, and nothing is pending', () => {
    const module = new nn.Sequential(new BatchNorm2d(C), new BatchNorm2d(C + 1))
    expectCode('ERR_SHAPE', () => module.vjp(input(1, 's')), 'BatchNorm2d')
    expect(module.modules().map(({ pendingForwards }) => pendingForwards)).toEqual([0, 0, 0])
    expect(module.stateDict()['0.num_batches_tracked']!.item()).toBe(0)
  })

  it('and never called is freed with the rest of the garbage, without a turn of the event loop', () => {
    const module = new nn.Sequential(new nn.Residual(new BatchNorm2d(C, { stepMode: 'm' })))
    const x = input(1, 'm')
    const forget = (times: number) => {
      for (let i = 0; i < times; i++) module.vjp(tensor(x.toTypedArray() as Float32Array, x.shape))
    }
    forget(10)
    collect()
    const before = memoryStats().allocated
    forget(2000)
    collect()
    // Of the last call the stack may still know.
    expect(memoryStats().allocated - before).toBeLessThan(10 * x.size * 4)
  })
})
