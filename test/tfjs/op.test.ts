// Modules as operations of the real TensorFlow.js, on its CPU backend: values and gradients against the float64
// reference and bit by bit against the module alone, and what training with TensorFlow.js needs around them.

import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as tf from '@tensorflow/tfjs-core'
import '@tensorflow/tfjs-backend-cpu'
// Brings the gradients of TensorFlow.js's own operations.
import '@tensorflow/tfjs-layers'
import { beforeAll, describe, expect, it } from 'vitest'
import {
  BatchNorm2d,
  BatchNormThroughTime2d,
  cuda,
  full,
  loadSafetensors,
  Module,
  memoryStats,
  NeuNorm,
  nn,
  type StepMode,
  saveSafetensors,
  TemporalEffectiveBatchNorm2d,
  type Tensor,
  ThresholdDependentBatchNorm2d,
  tensor,
} from '../../src/index.js'
import { type OpOptions, op } from '../../src/tfjs/index.js'
import { settle } from '../support/collect.js'
import { expectClose, expectCode } from '../support/compare.js'
import {
  createLayer,
  createReference,
  loadRandomState,
  NORM_CLASSES,
  randomInput,
} from '../support/layers.js'
import { normal, sizeOfShape } from '../support/numbers.js'
import { type Grid, sizeOf } from '../support/reference.js'
import { EXACT, largest, random } from '../support/tolerances.js'

beforeAll(async () => {
  await tf.setBackend('cpu')
})

const values = (seed: number, shape: number[]) => Float32Array.from(normal(seed, sizeOfShape(shape)))
const tfTensor = (seed: number, shape: number[]) => tf.tensor(values(seed, shape), shape)

/** y, and the gradients of Σ y·dy for x and for the variables. */
function differentiate(apply: ReturnType<typeof op>, x: tf.Tensor, dy: tf.Tensor) {
  const variables = Object.entries(apply.variables)
  let y: tf.Tensor | undefined
  const f = (input: tf.Tensor) => {
    y = tf.keep(apply(input))
    return tf.sum(tf.mul(y, dy)) as tf.Scalar
  }
  const inputs = tf.variable(x)
  const { grads } = tf.variableGrads(() => f(inputs), [inputs, ...variables.map(([, variable]) => variable)])
  return {
    y: y!,
    dx: grads[inputs.name]!,
    grads: Object.fromEntries(variables.map(([name, variable]) => [name, grads[variable.name]!])),
  }
}

describe('an op has the values and gradients of the float64 reference', () => {
  for (const kind of NORM_CLASSES) {
    for (const stepMode of kind.stepModes) {
      it(`${kind.name} in step mode '${stepMode}', in training and in eval`, () => {
        const extents = [3, 2, 2].slice(0, kind.spatial)
        const grid: Grid = { t: stepMode === 's' ? 1 : 3, n: 4, c: 5, s: sizeOfShape(extents) }
        const shape = [...(stepMode === 'm' ? [grid.t] : []), grid.n, grid.c, ...extents]
        for (const training of [true, false]) {
          const options = { channels: grid.c, steps: grid.t, stepMode, dtype: 'float32' as const }
          const layer = createLayer(kind, options).train(training)
          const reference = createReference(kind, options)
          loadRandomState(layer, reference, 3, 'float32')
          reference.training = training
          const [x, dy] = [1, 2].map((seed) => randomInput(seed, sizeOf(grid), 'float32', 0.5)) as [
            Float64Array,
            Float64Array,
          ]
          const result = differentiate(
            op(layer),
            tf.tensor(Float32Array.from(x), shape),
            tf.tensor(Float32Array.from(dy), shape),
          )
          const y = reference.forward(x, grid)
          const gain = reference.gain
          const terms = training ? 0 : gain * largest(x, reference.runningMean)
          expect(result.y.shape).toEqual(shape)
          expectClose('y', result.y.dataSync(), y, random('y', 'float32', y, terms))
          const dx = reference.backward(dy)
          expectClose('dx', result.dx.dataSync(), dx, random('dx', 'float32', dx, gain * largest(dy)))
          const grads = reference.grads()
          expect(Object.keys(result.grads).sort()).toEqual([...grads.keys()].sort())
          for (const [name, expected] of grads) {
            const gate = random('grad', 'float32', expected, largest(dy))
            expectClose(`gradient of ${name}`, result.grads[name]!.dataSync(), expected, gate)
          }
          for (const [name, expected] of reference.state()) {
            const gate = name.endsWith('tracked')
              ? EXACT
              : random('state', 'float32', expected, largest(expected))
            expectClose(name, layer.stateDict()[name]!.toFloat64Array(), expected, gate)
          }
        }
      })
    }
  }
})

describe('batchFirst', () => {
  const [N, T, H, W, C] = [4, 3, 2, 5, 6] as const
  const layers: [string, () => Module][] = [
    ['BatchNorm', () => new BatchNorm2d(C, { stepMode: 'm', channelsLast: true })],
    ['tdBN', () => new ThresholdDependentBatchNorm2d(1, 0.5, C, { channelsLast: true })],
    ['TEBN', () => new TemporalEffectiveBatchNorm2d(T, C, { channelsLast: true })],
    ['BNTT', () => new BatchNormThroughTime2d(T, C, { channelsLast: true, stepMode: 'm' })],
    ['NeuNorm', () => new NeuNorm(C, H, W, { channelsLast: true, stepMode: 'm' })],
    ['neurons', () => new nn.LIFNode({ stepMode: 'm' })],
  ]
  for (const [name, make] of layers) {
    it(`of ${name} gives what transposing before and after gives`, () => {
      const [x, dy] = [tfTensor(1, [N, T, H, W, C]), tfTensor(2, [N, T, H, W, C])]
      const swap = (value: tf.Tensor) => tf.transpose(value, [1, 0, 2, 3, 4])
      const layer = make()
      const twin = make()
      twin.loadStateDict(layer.stateDict())
      const got = differentiate(op(layer, { batchFirst: true }), x, dy)
      const expected = differentiate(op(twin), swap(x), swap(dy))
      // The order of sums is another one where nothing is moved.
      const close = (label: string, a: tf.Tensor, b: tf.Tensor) => {
        expect(a.shape).toEqual(b.shape)
        expectClose(label, a.dataSync(), b.dataSync(), random('y', 'float32', b.dataSync(), 1))
      }
      close('y', got.y, swap(expected.y))
      close('dx', got.dx, swap(expected.dx))
      for (const [key, grad] of Object.entries(expected.grads)) close(key, got.grads[key]!, grad)
    })
  }

  it('says so where there are no two axes', () => {
    const apply = op(new nn.LIFNode({ stepMode: 'm' }), { batchFirst: true })
    expectCode('ERR_SHAPE', () => apply(tf.tensor1d([1])), 'LIFNode: input: expected [N, T, …]')
  })
})

describe('an op takes the numbers of a tensor, whatever array holds them', () => {
  const shape = [4, 3, 2, 2]
  const numbers = Int32Array.from({ length: sizeOfShape(shape) }, (_, i) => (i * 7) % 5)
  const bits = numbers.map((value) => value % 2)
  const inputs: [string, Int32Array, () => tf.Tensor][] = [
    ['int32', numbers, () => tf.tensor(numbers, shape, 'int32')],
    // TensorFlow.js relabels these and keeps their Int32Array or Uint8Array.
    ['int32 cast to float32', numbers, () => tf.cast(tf.tensor(numbers, shape, 'int32'), 'float32')],
    ['bool', bits, () => tf.cast(tf.tensor(bits, shape, 'int32'), 'bool')],
    ['bool cast to float32', bits, () => tf.cast(tf.tensor([...bits], shape, 'bool'), 'float32')],
    ['bool cast to int32', bits, () => tf.cast(tf.tensor([...bits], shape, 'bool'), 'int32')],
  ]
  for (const [name, expected, make] of inputs) {
    it(`${name}: the same y and gradients as float32, in float32`, () => {
      for (const training of [true, false]) {
        const twins = [1, 2].map(() => op(new BatchNorm2d(3).train(training)))
        const [x, reference] = [make(), tf.tensor(Float32Array.from(expected), shape)]
        const dy = tf.tensor(numbers, shape, 'int32')
        const [got, wanted] = [x, reference].map((input, i) => {
          const apply = twins[i]!
          const [dx, dweight] = tf
            .grads((a: tf.Tensor) => apply(a))([input], tf.cast(dy, 'float32'))
            .concat(
              Object.values(
                tf.variableGrads(() => tf.sum(apply(input)) as tf.Scalar, [apply.variables.weight!]).grads,
              ),
            )
          return { y: apply(input), dx: dx!, dweight: dweight! }
        }) as Record<string, tf.Tensor>[] as [Record<string, tf.Tensor>, Record<string, tf.Tensor>]
        for (const key of ['y', 'dx', 'dweight']) {
          expect(got[key]!.dtype).toBe('float32')
          expect(got[key]!.dataSync(), key).toBeInstanceOf(Float32Array)
          expect([...got[key]!.dataSync()], key).toEqual([...wanted[key]!.dataSync()])
        }
        expect([...x.dataSync()]).toEqual([...expected])
      }
    })
  }

  it('in variables and with time moved', () => {
    const weight = tf.cast(tf.tensor1d([1, 2, 3], 'int32'), 'float32')
    const apply = op(new BatchNorm2d(3, { stepMode: 'm', channelsLast: true }).eval(), { batchFirst: true })
    apply.variables.weight!.assign(weight)
    expect([...apply.stateDict().weight!.toTypedArray()]).toEqual([1, 2, 3])
    const lif = op(new nn.LIFNode({ stepMode: 'm' }), { batchFirst: true })
    const x = tf.tensor(numbers, [4, 3, 4], 'int32')
    expect([...lif(x).dataSync()]).toEqual([...lif(tf.tensor([...numbers], [4, 3, 4])).dataSync()])
  })

  it('of another backend', async () => {
    const apply = op(new BatchNorm2d(3))
    const x = tf.tensor(Float32Array.from(numbers), shape)
    const expected = [...apply(x).dataSync()]
    const factory = tf.findBackendFactory('cpu')
    tf.registerBackend('another', factory, 0)
    tf.copyRegisteredKernels('cpu', 'another')
    try {
      await tf.setBackend('another')
      const moved = tf.tensor(numbers, shape, 'int32')
      for (const input of [x, moved]) expect([...apply(input).dataSync()]).toEqual(expected)
      await tf.setBackend('cpu')
      expect([...apply(moved).dataSync()]).toEqual(expected)
      expect([
        ...tf
          .grad((a: tf.Tensor) => apply(a))(moved, x)
          .dataSync(),
      ]).toEqual([
        ...tf
          .grad((a: tf.Tensor) => apply(a))(x, x)
          .dataSync(),
      ])
    } finally {
      await tf.setBackend('cpu')
      tf.removeBackend('another')
    }
  })
})

/** Looks at the memory that goes through it. */
class Probe extends Module {
  given: Float32Array | null = null
  seen = Number.NaN
  kept: Tensor | null = null

  protected override computeForward(x: Tensor): Tensor {
    if (this.given) this.given[0] = 42
    this.seen = x.toTypedArray()[0] as number
    const y = full(x.shape, 1)
    this.kept = y.reshape(y.shape)
    return y
  }

  protected override computeBackward(dy: Tensor): Tensor {
    return this.computeForward(dy)
  }
}

describe('on the CPU backend nothing is copied', () => {
  it('on the way in, forward and backward; an output that the module keeps is copied', () => {
    const probe = new Probe()
    const apply = op(probe)
    const data = new Float32Array(6000)
    probe.given = data
    const x = tf.tensor(data, [2, 3000])
    const y = apply(x)
    expect(probe.seen).toBe(42)
    // What the module keeps of its output is not TensorFlow.js's.
    ;(y.dataSync() as Float32Array)[5] = 7
    expect(probe.kept!.toTypedArray()[5]).toBe(1)

    const dy = new Float32Array(6000)
    const [dx] = tf.grads((input: tf.Tensor) => {
      probe.given = null
      const output = apply(input)
      probe.given = dy
      return output
    })([x], tf.tensor(dy, [2, 3000]))
    expect(probe.seen).toBe(42)
    ;(dx!.dataSync() as Float32Array)[1] = 8
    expect(probe.kept!.toTypedArray()[1]).toBe(1)
  })

  it('and an op holds the bytes of its output, for as long as TensorFlow.js does', async () => {
    const apply = op(new BatchNorm2d(16))
    const shape = [4, 16, 64, 64]
    const x = tfTensor(1, shape)
    await settle()
    const before = memoryStats().allocated
    const y = apply(x)
    const held = memoryStats().allocated - before
    expect(held).toBeGreaterThanOrEqual(4 * sizeOfShape(shape))
    expect(held).toBeLessThan(4 * sizeOfShape(shape) * 1.2)
    y.dispose()
    await settle()
    expect(memoryStats().allocated - before).toBeLessThan(1 << 16)
  })
})

describe('TensorFlow.js trains the variables of an op', () => {
  it('with an optimiser, beside layers of its own; the state has what was learned', () => {
    const [T, N, H, W, C] = [2, 6, 4, 4, 3] as const
    const norm = op(new ThresholdDependentBatchNorm2d(1, 1, C, { channelsLast: true }))
    const neurons = op(new nn.LIFNode({ stepMode: 'm', surrogate: 'atan' }))
    const filter = tf.variable(tf.mul(tfTensor(3, [3, 3, 1, C]), 0.3))
    const readOut = tf.variable(tf.mul(tfTensor(4, [C, 2]), 0.3))
    const x = tfTensor(5, [T * N, H, W, 1])
    const labels = tf.oneHot(tf.tensor1d([0, 1, 0, 1, 0, 1], 'int32'), 2)
    const loss = () => {
      neurons.module.reset()
      const current = tf.conv2d(x as tf.Tensor4D, filter as tf.Tensor4D, 1, 'same')
      const spikes = neurons(norm(tf.reshape(current, [T, N, H, W, C])))
      const logits = tf.matMul(tf.mean(spikes, [0, 2, 3]), readOut as tf.Tensor2D)
      return tf.neg(tf.mean(tf.sum(tf.mul(labels, tf.logSoftmax(logits)), 1))) as tf.Scalar
    }
    const start = norm.stateDict()
    const optimizer = tf.train.adam(0.05)
    const variables = [filter, readOut, ...Object.values(norm.variables)]
    const losses = Array.from({ length: 25 }, () => {
      const value = optimizer.minimize(loss, true, variables)!
      return value.dataSync()[0] as number
    })
    expect(losses.at(-1)).toBeLessThan(0.75 * losses[0]!)
    const end = norm.stateDict()
    expect(end.num_batches_tracked!.item()).toBe(25)
    for (const name of ['weight', 'bias', 'running_mean', 'running_var']) {
      expect([...end[name]!.toTypedArray()], name).not.toEqual([...start[name]!.toTypedArray()])
    }
    expect([...end.weight!.toTypedArray()]).toEqual([...norm.variables.weight!.dataSync()])
    expect([norm, neurons].map(({ module }) => module.pendingForwards)).toEqual([0, 0])
  })

  it('and takes up a state that is loaded', () => {
    const folder = mkdtempSync(join(tmpdir(), 'spikenorm-'))
    try {
      const first = op(new BatchNorm2d(3))
      first.variables.weight!.assign(tf.tensor1d([1, 2, 3]))
      saveSafetensors(join(folder, 'state.safetensors'), first.stateDict())
      const second = op(new BatchNorm2d(3))
      second.loadStateDict(loadSafetensors(join(folder, 'state.safetensors')))
      expect([...second.variables.weight!.dataSync()]).toEqual([1, 2, 3])
      const x = tfTensor(1, [4, 3, 2, 2])
      expect([...second(x).dataSync()]).toEqual([...first(x).dataSync()])
      expectCode('ERR_STATE_DICT', () => second.loadStateDict({ weight: tensor([1], [1]) }), 'weight')
      expect([...second.variables.weight!.dataSync()]).toEqual([1, 2, 3])
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  it('through time: T single steps give what all steps at once give', () => {
    const [T, N, C, H, W] = [4, 3, 5, 2, 3] as const
    const make = (stepMode: StepMode) => new NeuNorm(C, H, W, { stepMode, k: 0.6 })
    const multi = op(make('m'))
    const single = op(make('s'))
    single.loadStateDict(multi.stateDict())
    const [x, dy] = [tfTensor(1, [T, N, C, H, W]), tfTensor(2, [T, N, C, H, W])]
    const expected = differentiate(multi, x, dy)
    const stepped = Object.assign(
      (input: tf.Tensor) => tf.stack(tf.unstack(input).map((step) => single(step))),
      single,
    )
    const got = differentiate(stepped, x, dy)
    for (const [label, a, b] of [
      ['y', got.y, expected.y],
      ['dx', got.dx, expected.dx],
      ['dw', got.grads.w!, expected.grads.w!],
    ] as const) {
      expectClose(label, a.dataSync(), b.dataSync(), random('y', 'float32', b.dataSync(), 4))
    }
  })
})

describe('an op keeps order', () => {
  it('leaves nothing pending, and the gradients of the module alone', () => {
    const layer = new BatchNorm2d(3)
    const x = tensor(values(1, [4, 3, 2, 2]), [4, 3, 2, 2])
    layer.backward(layer.forward(x))
    const before = layer.parameters().map(({ grad }) => grad!.toTypedArray())
    const apply = op(layer)
    apply(tfTensor(2, [4, 3, 2, 2]))
    // The first of two calls is not part of the result.
    tf.grad((input: tf.Tensor) => {
      apply(input)
      return apply(tf.mul(input, 2))
    })(tfTensor(3, [4, 3, 2, 2]))
    expect(layer.pendingForwards).toBe(0)
    expect(layer.parameters().map(({ grad }) => grad!.toTypedArray())).toEqual(before)
  })

  it('leaves no tensor behind in TensorFlow.js, and frees its variables', () => {
    const start = tf.memory().numTensors
    const apply = op(new BatchNorm2d(3))
    expect(tf.memory().numTensors - start).toBe(2)
    tf.tidy(() => {
      const x = tfTensor(1, [4, 3, 2, 2])
      apply(x)
      tf.grad((input: tf.Tensor) => apply(input))(x)
    })
    expect(tf.memory().numTensors - start).toBe(2)
    apply.dispose()
    expect(tf.memory().numTensors).toBe(start)
  })

  it('names its variables after the class and the parameter, or as told', () => {
    expect(op(new BatchNorm2d(3)).variables.weight!.name).toMatch(/^spikenorm\/BatchNorm2d_\d+\/weight$/)
    const named = op(new BatchNorm2d(3), { name: 'first' })
    expect(Object.values(named.variables).map(({ name }) => name)).toEqual(['first/weight', 'first/bias'])
    const before = tf.memory().numTensors
    expect(() => op(new BatchNorm2d(3), { name: 'first' })).toThrow(/already registered/)
    expect(tf.memory().numTensors).toBe(before)
  })

  it('refuses what it cannot take, and has changed nothing', () => {
    const layer = new BatchNorm2d(3)
    const apply = op(layer)
    const shape = [4, 3, 2, 2]
    const complex = tf.complex(tf.zeros(shape), tf.zeros(shape))
    expectCode('ERR_DTYPE', () => apply(complex), 'BatchNorm2d: input', 'complex64', 'tf.real')
    expectCode('ERR_DTYPE', () => apply(tf.fill(shape, 'a', 'string')), 'got string')
    expectCode('ERR_ARGUMENT', () => apply([1, 2] as unknown as tf.Tensor), 'tf.Tensor', '[1, 2]')
    expectCode('ERR_ARGUMENT', () => apply(null as unknown as tf.Tensor), 'tf.Tensor', 'null')
    const gone = tf.zeros(shape)
    gone.dispose()
    expectCode('ERR_DISPOSED', () => apply(gone), 'BatchNorm2d: input')
    expectCode('ERR_SHAPE', () => apply(tf.zeros([4, 2, 2, 2])), 'numFeatures = 3')
    for (const wrong of [undefined, null, (x: tf.Tensor) => x, {}]) {
      expectCode('ERR_ARGUMENT', () => op(wrong as unknown as Module), 'op: module: expected a Module')
    }
    const wrongOptions: [unknown, string][] = [
      [{ batch_first: true }, "op: options: there is no option 'batch_first'; did you mean batchFirst?"],
      [{ batchFirst: 'yes' }, 'op: batchFirst: expected true or false'],
      [{ name: 3 }, 'op: name: expected a string, got 3'],
      [true, 'op: options: expected an object'],
    ]
    for (const [options, message] of wrongOptions) {
      expectCode('ERR_ARGUMENT', () => op(new BatchNorm2d(3), options as OpOptions), message)
    }
    const wide = op(new BatchNorm2d(3, { dtype: 'float64' }))
    expectCode('ERR_DTYPE', () => wide(tf.zeros(shape)), 'float64')
    expect(layer.stateDict().num_batches_tracked!.item()).toBe(0)
  })

  it('says that it has been disposed of, or its module', () => {
    const layer = new BatchNorm2d(3)
    const apply = op(layer)
    const x = tfTensor(1, [4, 3, 2, 2])
    apply.dispose()
    apply.dispose()
    const dict = new BatchNorm2d(3).stateDict()
    for (const call of [() => apply(x), () => apply.stateDict(), () => apply.loadStateDict(dict)]) {
      expectCode('ERR_DISPOSED', call, 'op of BatchNorm2d', 'variable')
    }
    const second = op(layer)
    layer.dispose()
    expectCode('ERR_DISPOSED', () => second(x))
    expectCode('ERR_DISPOSED', () => second.stateDict())
  })

  it('refuses gradients of gradients instead of giving zeros', () => {
    const apply = op(new BatchNorm2d(3))
    const twice = tf.grad((x: tf.Tensor) => tf.sum(tf.square(tf.grad((y: tf.Tensor) => apply(y))(x))))
    expectCode('ERR_ARGUMENT', () => twice(tfTensor(1, [4, 3, 2, 2])), 'gradients of gradients')
  })

  it.skipIf(!cuda.isAvailable())('takes a module on a CUDA device, with copies', () => {
    const layer = new ThresholdDependentBatchNorm2d(1, 1, 3, { device: 'cuda', channelsLast: true })
    const twin = new ThresholdDependentBatchNorm2d(1, 1, 3, { channelsLast: true })
    const [x, dy] = [tfTensor(1, [2, 4, 2, 2, 3]), tfTensor(2, [2, 4, 2, 2, 3])]
    const [got, expected] = [differentiate(op(layer), x, dy), differentiate(op(twin), x, dy)]
    for (const key of ['y', 'dx'] as const) {
      const reference = expected[key].dataSync()
      expectClose(key, got[key].dataSync(), reference, random('y', 'float32', reference, 1))
    }
    expect(layer.parameters()[0]!.device).toBe('cuda:0')
  })
})

describe('the optional peers', () => {
  const src = fileURLToPath(new URL('../../src', import.meta.url))
  /** Source files that name `what`. */
  const naming = (what: RegExp) =>
    readdirSync(src, { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts') && what.test(readFileSync(join(src, name), 'utf8')))
      .sort()

  it('are imported by spikenorm/tfjs alone, and tf.layers by spikenorm/tfjs/layers alone', () => {
    const core = naming(/from '@tensorflow\/tfjs-core'/)
    expect(core.length).toBeGreaterThan(3)
    expect(core.filter((name) => !name.startsWith('tfjs'))).toEqual([])
    expect(naming(/from '@tensorflow\/tfjs-layers'/).map((name) => name.slice(5))).toEqual([
      'layer-arguments.ts',
      'layers.ts',
    ])
    const inside = naming(/from '\.\/(layers|kinds)\.js'/).filter((name) => name.startsWith('tfjs'))
    expect(inside.map((name) => name.slice(5))).toEqual(['layers.ts'])
    expect(naming(/from '.*\/tfjs(\/\w+)?\.js'/)).toEqual([])
  })
})
