// What must hold on a CUDA device when something goes wrong: captures that throw, workers that end, memory that runs out.
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { describe, expect, it } from 'vitest'
import {
  BatchNorm1d,
  BatchNorm2d,
  BatchNormThroughTime1d,
  cuda,
  enableGrad,
  functional,
  type Module,
  NeuNorm,
  nn,
  ones,
  optim,
  type Parameter,
  TemporalEffectiveBatchNorm1d,
  Tensor,
  ThresholdDependentBatchNorm1d,
  tensor,
  zeros,
} from '../src/index.js'
import { expectCode } from './support/compare.js'

const reason = cuda.unavailableReason()
const at = { device: 'cuda' } as const
const wave = (shape: number[], device: 'cpu' | 'cuda' = 'cuda') => {
  const size = shape.reduce((product, extent) => product * extent, 1)
  return tensor(
    Float32Array.from({ length: size }, (_, i) => Math.sin(i * 1.7)),
    shape,
    { device },
  )
}
const numbers = (x: Tensor | null) => (x === null ? null : [...x.toFloat64Array()])

/** All that a step may change of a net and its optimiser. */
function stateOf(net: Module, optimizer?: optim.SGD | optim.Adam) {
  const values = (dict: Record<string, Tensor>) =>
    Object.entries(dict).map(([name, value]) => [name, numbers(value)])
  return {
    values: values(net.stateDict()),
    grads: net.parameters().map(({ grad }) => numbers(grad)),
    pending: net.modules().map(({ pendingForwards }) => pendingForwards),
    modes: net.modules().map(({ training, stepMode }) => [training, stepMode]),
    optimizer: optimizer ? values(optimizer.stateDict()) : [],
  }
}

const failure = new Error('of the user')

/** Captures `body` and a throw after it. */
function failingGraph(body: () => void) {
  expect(() =>
    cuda.graph(() => {
      body()
      throw failure
    }),
  ).toThrow(failure)
}

describe.skipIf(reason !== null)(
  `cuda failures${reason === null ? '' : ` (not run here: ${reason})`}`,
  () => {
    const inputs = reason === null ? wave([4, 3]) : zeros([4, 3])
    const nets: [string, () => Module, number[]][] = [
      ['BatchNorm1d', () => new BatchNorm1d(3, at), [4, 3]],
      ['tdBN', () => new ThresholdDependentBatchNorm1d(1, 1, 3, at), [2, 4, 3]],
      ['TEBN', () => new TemporalEffectiveBatchNorm1d(2, 3, at), [2, 4, 3]],
      ['BNTT, a step', () => new BatchNormThroughTime1d(2, 3, at), [4, 3]],
      ['BNTT, all steps', () => new BatchNormThroughTime1d(4, 3, { ...at, stepMode: 'm' }), [2, 4, 3]],
      ['NeuNorm', () => new NeuNorm(3, 2, 2, at), [4, 3, 2, 2]],
      ['IFNode', () => new nn.IFNode(), [4, 3]],
      ['LIFNode', () => new nn.LIFNode({ stepMode: 'm' }), [2, 4, 3]],
      ['Linear', () => new nn.Linear(3, 2, at), [4, 3]],
      [
        'a net',
        () =>
          new nn.Sequential(
            new nn.Linear(3, 3, at),
            new BatchNorm1d(3, at),
            new nn.Residual(new nn.IFNode()),
          ),
        [4, 3],
      ],
    ]

    for (const [name, make, shape] of nets) {
      it(`${name} is what it was before a capture that throws`, () => {
        const [net, twin] = [make(), make()]
        twin.loadStateDict(net.stateDict())
        const x = wave(shape)
        const step = (module: Module) => {
          const y = module.forward(x)
          return [numbers(y), numbers(module.backward(y))]
        }
        for (const module of [net, twin]) {
          step(module)
          functional.resetNet(module)
        }
        for (const body of [
          () => void net.forward(x),
          () => {
            net.backward(net.forward(x))
          },
          () => {
            net.zeroGrad()
            net.forward(x)
            net.reset()
            net.forward(x)
            net.detach()
          },
        ]) {
          const before = stateOf(net)
          failingGraph(body)
          expect(stateOf(net)).toEqual(before)
        }
        expect(step(net)).toEqual(step(twin))
        expect(stateOf(net)).toEqual(stateOf(twin))
      })

      it(`a pending forward of ${name} and its gradients outlast a capture that throws`, () => {
        const [net, twin] = [make(), make()]
        twin.loadStateDict(net.stateDict())
        const x = wave(shape)
        const [y, expectedY] = [net.forward(x), twin.forward(x)]
        const before = stateOf(net)
        failingGraph(() => {
          net.backward(y)
          net.zeroGrad()
        })
        failingGraph(() => net.reset())
        expect(stateOf(net)).toEqual(before)
        expect(numbers(net.backward(y))).toEqual(numbers(twin.backward(expectedY)))
        expect(stateOf(net)).toEqual(stateOf(twin))
      })
    }

    for (const [name, make] of [
      ['SGD', (parameters: Parameter[]) => new optim.SGD(parameters, { lr: 0.1, momentum: 0.9 })],
      ['Adam', (parameters: Parameter[]) => new optim.Adam(parameters, { lr: 0.1 })],
    ] as const) {
      it(`a first and a later step of ${name} are undone with the capture around them`, () => {
        const pair = () => {
          const net = new BatchNorm1d(3, at)
          return { net, optimizer: make(net.parameters()) }
        }
        const [tried, twin] = [pair(), pair()]
        const [x, dy] = [wave([4, 3]), wave([4, 3])]
        const step = ({ net, optimizer }: ReturnType<typeof pair>) => {
          optimizer.zeroGrad()
          net.forward(x)
          net.backward(dy)
          optimizer.step()
        }
        for (let round = 0; round < 2; round++) {
          const before = stateOf(tried.net, tried.optimizer)
          failingGraph(() => step(tried))
          expect(stateOf(tried.net, tried.optimizer)).toEqual(before)
          for (const each of [tried, twin]) step(each)
          expect(stateOf(tried.net, tried.optimizer)).toEqual(stateOf(twin.net, twin.optimizer))
        }
      })
    }

    it('modules on the CPU, whose work has run, are undone too', () => {
      const here = new BatchNorm1d(3)
      const x = wave([4, 3], 'cpu')
      here.forward(x)
      const before = stateOf(here)
      failingGraph(() => {
        here.backward(here.forward(x))
        here.forward(x)
      })
      expect(stateOf(here)).toEqual(before)
    })

    it('a capture within one throws, and the outer one may go on', () => {
      const x = ones([4], at)
      const bn = new BatchNorm1d(3, at)
      const graph = cuda.graph(() => {
        expectCode('ERR_CUDA', () => cuda.graph(() => {}), 'captured already')
        bn.forward(inputs)
        return x.clone()
      })
      graph.replay()
      expect(numbers(graph.result)).toEqual([1, 1, 1, 1])
      expect(bn.pendingForwards).toBe(1)
    })
    it('an asynchronous function is refused, and the device goes on', async () => {
      const bn = new BatchNorm1d(3, at)
      expectCode('ERR_ARGUMENT', () => cuda.graph(async () => {}), 'cuda.graph', 'synchronous')
      const late = () => {
        bn.forward(inputs)
        return Promise.reject(failure)
      }
      expectCode('ERR_ARGUMENT', () => cuda.graph(late), 'cuda.graph', 'synchronous')
      expect(bn.pendingForwards).toBe(0)
      expect(numbers(ones([2], at))).toEqual([1, 1])
    })

    it('a graph keeps the memory that a tensor by address has looked at', () => {
      const [target, source] = [ones([1000], at), ones([1000], at)]
      const over = (x: Tensor) =>
        Tensor.fromDevicePointer({ ptr: x.devicePointer, shape: [1000], dtype: 'float32' })
      over(target).dispose()
      const view = over(source)
      const graph = cuda.graph(() => target.copy_(source))
      target.dispose()
      source.dispose()
      view.dispose()
      cuda.synchronize()
      const others = Array.from({ length: 10 }, () => wave([1000]))
      graph.replay()
      cuda.synchronize()
      for (const other of others) expect(numbers(other)).toEqual(numbers(wave([1000])))
    })

    it('an event that was not recorded times nothing', () => {
      const [a, b] = [new cuda.Event(), new cuda.Event()]
      a.record()
      expectCode('ERR_ARGUMENT', () => a.elapsedTime(b), 'end', 'record()')
      expectCode('ERR_ARGUMENT', () => b.elapsedTime(a), 'start', 'record()')
      b.synchronize()
      for (const wrong of [5, undefined, null, {}, 'b']) {
        expectCode('ERR_ARGUMENT', () => a.elapsedTime(wrong as never), 'end', 'cuda.Event')
      }
      b.dispose()
      expectCode('ERR_DISPOSED', () => a.elapsedTime(b))
    })

    it('pointers, streams and devices that are none are named', () => {
      const memory = { ptr: ones([1], at).devicePointer, shape: [1], dtype: 'float32' } as const
      for (const wrong of [5, '5', null, {}, -1n, 1n << 64n]) {
        const ptr = () => Tensor.fromDevicePointer({ ...memory, ptr: wrong as never })
        expectCode('ERR_ARGUMENT', ptr, 'ptr', 'bigint')
        const stream = () => Tensor.fromDevicePointer({ ...memory, stream: wrong as never })
        expectCode('ERR_ARGUMENT', stream, 'stream', 'bigint')
      }
      expectCode(
        'ERR_ARGUMENT',
        () => Tensor.fromDevicePointer({ ...memory, ptr: undefined as never }),
        'ptr',
      )
      for (const wrong of ['cuda:99', 'cuda:99999999999999999999', 'cuda:-1', 'gpu', 5] as never[]) {
        for (const call of [
          () => cuda.synchronize(wrong),
          () => cuda.stream(wrong),
          () => new cuda.Event(wrong),
          () => cuda.graph(() => {}, { device: wrong }),
          () => Tensor.fromDevicePointer({ ...memory, device: wrong }),
        ]) {
          expectCode('ERR_DEVICE', call, 'device')
        }
      }
      for (const call of [
        () => cuda.stream('cpu'),
        () => new cuda.Event('cpu'),
        () => cuda.graph(() => {}, { device: 'cpu' }),
      ]) {
        expectCode('ERR_DEVICE', call, 'cpu')
      }
    })

    it('in eval mode an infinite or NaN input leaves dx finite', () => {
      for (const dtype of ['float32', 'float64', 'float16'] as const) {
        const bn = new BatchNorm1d(2, { ...at, dtype: dtype === 'float64' ? dtype : 'float32' }).eval()
        const x = tensor([1, Infinity, NaN, 4, 5, -Infinity, 7, 8], [4, 2], { ...at, dtype })
        enableGrad(() => bn.forward(x))
        for (const value of numbers(bn.backward(ones([4, 2], { ...at, dtype }))) as number[]) {
          expect(value).toBeCloseTo(1, 3)
        }
      }
    })

    it('an empty batch returns at once, whatever the number of steps', () => {
      const T = 2 ** 40
      for (const [module, shape] of [
        [new BatchNorm1d(3, { ...at, stepMode: 'm' }), [T, 0, 3]],
        [new ThresholdDependentBatchNorm1d(1, 1, 3, at), [T, 0, 3]],
        [new BatchNorm2d(3, { ...at, stepMode: 'm', channelsLast: true }), [T, 0, 2, 2, 3]],
        [new NeuNorm(3, 2, 2, { ...at, stepMode: 'm' }), [T, 0, 3, 2, 2]],
        [new nn.IFNode({ stepMode: 'm' }), [T, 0, 3]],
        [new nn.LIFNode({ stepMode: 'm' }), [T, 0, 3]],
        [new nn.Linear(3, 2, { ...at, stepMode: 'm' }), [T, 0, 3]],
        [new nn.Conv2d(3, 2, 1, { ...at, stepMode: 'm' }), [T, 0, 3, 2, 2]],
        [new nn.AvgPool2d(2, { stepMode: 'm' }), [T, 0, 3, 2, 2]],
        [new nn.MaxPool2d(2, { stepMode: 'm' }), [T, 0, 3, 2, 2]],
      ] as [Module, number[]][]) {
        const x = zeros(shape, at)
        module.eval()
        const y = enableGrad(() => module.forward(x))
        expect([y.shape[0], y.size], module.constructor.name).toEqual([T, 0])
        expect(module.backward(y).shape, module.constructor.name).toEqual(shape)
      }
    })

    it('a worker that ends in a capture ends it, however it ends', async () => {
      const ways = ['exit', 'exit after a forward', 'terminate', 'out of heap', 'two devices', 'no capture']
      for (const way of ways) {
        const worker = new Worker(new URL('support/worker-capture.mjs', import.meta.url), {
          workerData: way,
          resourceLimits: { maxOldGenerationSizeMb: 120 },
          stderr: true,
        })
        const errors: unknown[] = []
        worker.on('error', (error: Error & { code?: string }) => errors.push(error.code ?? error.message))
        worker.on('message', () => void worker.terminate())
        await new Promise((done) => worker.on('exit', done))
        expect(errors, way).toEqual(way === 'out of heap' ? ['ERR_WORKER_OUT_OF_MEMORY'] : [])
        expect(numbers(ones([2], at)), way).toEqual([1, 1])
        const graph = cuda.graph(() => inputs.clone())
        graph.replay()
        expect(numbers(graph.result), way).toEqual(numbers(inputs))
      }
    }, 60_000)

    const isEmulated = reason === null && (cuda.devices()[0]?.name ?? '').includes('emulated')
    it.skipIf(!isEmulated)(
      'out of memory is ERR_OUT_OF_MEMORY in every operation, and leaves everything as it was',
      () => {
        const program = fileURLToPath(new URL('support/device-memory-loop.ts', import.meta.url))
        const run = spawnSync(process.execPath, ['--import', 'tsx', program], {
          encoding: 'utf8',
          env: { ...process.env, SPIKENORM_EMULATED_MEMORY: String(48 << 20) },
          timeout: 100_000,
        })
        expect(run.stderr).toBe('')
        expect(
          run.stdout
            .trim()
            .split('\n')
            .map((line) => line.split(' ')[1]),
        ).toEqual(Array(10).fill('survived'))
      },
      120_000,
    )
  },
)
