// What only a CUDA device has: graphs, events, pointers.
import { describe, expect, it } from 'vitest'
import {
  cuda,
  emptyCache,
  memoryStats,
  nn,
  optim,
  Tensor,
  ThresholdDependentBatchNorm2d,
  tensor,
} from '../src/index.js'
import { expectCode } from './support/compare.js'

const reason = cuda.unavailableReason()
const x = () => Float32Array.from({ length: 2 * 4 * 3 * 16 }, (_, i) => Math.sin(i * 1.7))

function step(device: 'cpu' | 'cuda') {
  const bn = new ThresholdDependentBatchNorm2d(1, 1, 3, { momentum: null, device })
  const input = tensor(x(), [2, 4, 3, 4, 4], { device })
  // Not y itself: its sum is 0 but for roundings, which Adam would make steps of.
  const dy = tensor(
    x().map((_, i) => 0.5 + Math.cos(i * 0.9)),
    [2, 4, 3, 4, 4],
    { device },
  )
  const adam = new optim.Adam(bn.parameters(), { lr: 0.05 })
  const run = () => {
    bn.zeroGrad()
    const y = bn.forward(input)
    bn.backward(dy)
    adam.step()
    return y
  }
  return { bn, run, input }
}

const state = ({ bn }: ReturnType<typeof step>) =>
  Object.entries(bn.stateDict()).map(([name, value]) => [name, [...value.toFloat64Array()]] as const)

describe.skipIf(reason !== null)(`cuda${reason === null ? '' : ` (not run here: ${reason})`}`, () => {
  it('a captured training step replays as the step itself would run', () => {
    const [eager, captured] = [step('cuda'), step('cuda')]
    for (const each of [eager, captured]) each.run()
    const graph = cuda.graph(captured.run)
    expect(state(captured)).toEqual(state(eager))
    for (let i = 0; i < 3; i++) {
      const y = eager.run()
      graph.replay()
      expect(graph.result.toFloat64Array()).toEqual(y.toFloat64Array())
    }
    expect(state(captured)).toEqual(state(eager))
    graph.dispose()
    expectCode('ERR_DISPOSED', () => graph.replay())
  })

  it('reading inside a capture throws, and the device goes on', () => {
    const { run, input } = step('cuda')
    run()
    expectCode('ERR_CUDA', () => cuda.graph(() => input.toTypedArray()), 'captur')
    expectCode('ERR_CUDA', () => cuda.graph(() => cuda.graph(() => {})))
    expect(Number.isFinite(run().toFloat64Array()[0])).toBe(true)
  })

  it('a loss is read after the replay', () => {
    const logits = tensor([1, 2, 3, 1, 0, 1], [2, 3], { device: 'cuda' })
    const labels = tensor(new BigInt64Array([2n, 0n]), [2], { device: 'cuda' })
    const expected = nn.crossEntropy(logits, labels).loss
    const graph = cuda.graph(() => nn.crossEntropy(logits, labels))
    graph.replay()
    expect(graph.result.readLoss()).toBe(expected)
  })

  it('a label that is no class is found when the loss is read', () => {
    const logits = tensor([1, 2, 3], [1, 3], { device: 'cuda' })
    const wrong = nn.crossEntropy(logits, [7])
    expectCode('ERR_ARGUMENT', () => wrong.loss, 'sample 0')
  })

  it('shares memory by address', () => {
    const owner = tensor(x(), [2, 4, 3, 16], { device: 'cuda' })
    const other = Tensor.fromDevicePointer({
      ptr: owner.devicePointer,
      shape: [384],
      dtype: 'float32',
      device: 'cuda',
      stream: cuda.stream(),
    })
    expect(other.toTypedArray()).toEqual(x())
    other.copy_(tensor(x().fill(2), [384]))
    expect(owner.toTypedArray()).toEqual(x().fill(2))
    const wrong = { ptr: 4096n, shape: [4], dtype: 'float32' } as const
    expectCode('ERR_ARGUMENT', () => Tensor.fromDevicePointer(wrong), 'address')
    expectCode('ERR_DEVICE', () => tensor([1], [1]).devicePointer, 'cpu')
  })

  it('events time what lies between them', () => {
    const [start, end] = [new cuda.Event(), new cuda.Event()]
    start.record()
    step('cuda').run()
    end.record()
    expect(start.elapsedTime(end)).toBeGreaterThanOrEqual(0)
  })

  it('tensors of different devices do not meet', () => {
    const { bn } = step('cuda')
    expectCode('ERR_DEVICE', () => bn.forward(tensor(x(), [2, 4, 3, 4, 4])), 'cuda:0', 'cpu')
    bn.to('cpu')
    expect(bn.forward(tensor(x(), [2, 4, 3, 4, 4])).device).toBe('cpu')
  })

  it.skipIf(cuda.devices().length < 2)('a tensor and a module move between devices, and work there', () => {
    const first = step('cuda')
    const values = x()
    using there = first.input.to('cuda:1')
    expect([first.input.device, there.device]).toEqual(['cuda:0', 'cuda:1'])
    expect(there.toTypedArray()).toEqual(values)
    expect(there.to('cuda').toTypedArray()).toEqual(values)
    expectCode('ERR_DEVICE', () => first.bn.forward(there), 'cuda:0', 'cuda:1')
    const expected = first.run().toFloat64Array()
    const moved = step('cpu')
    moved.bn.to('cuda:1')
    const y = moved.bn.forward(there)
    expect(y.device).toBe('cuda:1')
    expect(y.toFloat64Array()).toEqual(expected)
  })

  it('memory is counted by device and given back', () => {
    // Compared around dispose alone: garbage of other tests may go whenever something is allocated.
    const held = tensor(new Float32Array(1 << 18), [1 << 18], { device: 'cuda' })
    const holding = { cpu: memoryStats().allocated, cuda: memoryStats('cuda:0') }
    expect(holding.cuda.peak).toBeGreaterThanOrEqual(holding.cuda.allocated)
    held.dispose()
    const free = memoryStats('cuda')
    expect(holding.cuda.allocated - free.allocated).toBe(1 << 20)
    expect(free.cached - holding.cuda.cached).toBe(1 << 20)
    expect(memoryStats().allocated).toBe(holding.cpu)
    emptyCache('cuda')
    expect(memoryStats('cuda').cached).toBeLessThanOrEqual(free.cached - (1 << 20))
    expectCode('ERR_DEVICE', () => memoryStats('cuda:99'))
  })

  it('trains as on the CPU', () => {
    const [here, there] = [step('cpu'), step('cuda')]
    for (let i = 0; i < 4; i++) {
      here.run()
      there.run()
    }
    const [a, b] = [state(here), state(there)]
    for (const [i, [name, values]] of a.entries()) {
      for (const [j, value] of values.entries()) expect(b[i]![1][j], name).toBeCloseTo(value, 5)
    }
  })
})
