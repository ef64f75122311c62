// Layers of the real tf.layers: they train in model.fit, their running statistics are weights, and a model with them is
// saved and loaded.

import * as tf from '@tensorflow/tfjs-core'
import '@tensorflow/tfjs-backend-cpu'
import * as tfl from '@tensorflow/tfjs-layers'
import { beforeAll, describe, expect, it } from 'vitest'
import { type Module, ThresholdDependentBatchNorm2d } from '../../src/index.js'
import { op } from '../../src/tfjs/index.js'
import * as own from '../../src/tfjs/layers.js'
import { expectClose, expectCode } from '../support/compare.js'
import { normal, sizeOfShape } from '../support/numbers.js'
import { EXACT, peer } from '../support/tolerances.js'

beforeAll(async () => {
  await tf.setBackend('cpu')
})

const [N, T, H, W, C] = [12, 3, 4, 5, 2] as const

const tfTensor = (seed: number, shape: number[]) =>
  tf.tensor(Float32Array.from(normal(seed, sizeOfShape(shape))), shape)

/** Weights of a layer by the last part of their names. */
function weightsOf(layer: tfl.layers.Layer): Record<string, number[]> {
  return Object.fromEntries(
    layer.weights.map((weight) => [weight.originalName.split('/').at(-1)!, [...weight.read().dataSync()]]),
  )
}

/** Patterns of two classes, which differ in where the input is large, and in when. */
function patterns(): { x: tf.Tensor; y: tf.Tensor } {
  const noise = normal(1, N * T * H * W)
  const x = noise.map((value, i) => {
    const [n, h] = [Math.floor(i / (T * H * W)), Math.floor(i / W) % H]
    return 0.4 * value + (n % 2 === (h < H / 2 ? 0 : 1) ? 1 : -1)
  })
  const labels = Array.from({ length: N }, (_, n) => n % 2)
  return {
    x: tf.tensor(Float32Array.from(x), [N, T, H, W, 1]),
    y: tf.oneHot(tf.tensor1d(labels, 'int32'), 2),
  }
}

/** A convolution, a norm, neurons and a read-out. */
function spikingModel(norm: tfl.layers.Layer): tfl.Sequential {
  const conv = tfl.layers.conv2d({
    filters: C,
    kernelSize: 3,
    padding: 'same',
    useBias: false,
    kernelInitializer: tfl.initializers.glorotUniform({ seed: 4 }),
  })
  const model = tfl.sequential({
    layers: [
      tfl.layers.timeDistributed({ layer: conv, inputShape: [T, H, W, 1] }),
      norm,
      own.lifNode({ surrogate: 'atan' }),
      tfl.layers.flatten(),
      tfl.layers.dense({
        units: 2,
        activation: 'softmax',
        kernelInitializer: tfl.initializers.glorotUniform({ seed: 5 }),
      }),
    ],
  })
  model.compile({ optimizer: tf.train.adam(0.02), loss: 'categoricalCrossentropy' })
  return model
}

const norms: [string, () => tfl.layers.Layer][] = [
  ['BatchNorm2d', () => own.batchNorm2d()],
  ['ThresholdDependentBatchNorm2d', () => own.thresholdDependentBatchNorm2d({ alpha: 1, vTh: 0.8 })],
  ['TemporalEffectiveBatchNorm2d', () => own.temporalEffectiveBatchNorm2d({ momentum: 0.2 })],
  ['BatchNormThroughTime2d', () => own.batchNormThroughTime2d()],
  ['NeuNorm', () => own.neuNorm({ k: 0.8 })],
]

describe('model.fit trains a spiking net', () => {
  for (const [name, make] of norms) {
    it(`with ${name}: the loss falls, weights change, running statistics move`, async () => {
      const norm = make()
      const model = spikingModel(norm)
      const { x, y } = patterns()
      const start = weightsOf(norm)
      const tensors = { before: 0, after: 0 }
      const { history } = await model.fit(x, y, {
        epochs: 12,
        batchSize: 6,
        shuffle: false,
        verbose: 0,
        yieldEvery: 'never',
        callbacks: {
          onEpochEnd: async (epoch) => {
            // What training itself keeps (moments of the optimiser, the history) is there after the first epochs.
            if (epoch === 5) tensors.before = tf.memory().numTensors
            if (epoch === 10) tensors.after = tf.memory().numTensors
          },
        },
      })
      const losses = history.loss as number[]
      expect(losses.at(-1)).toBeLessThan(0.7 * losses[0]!)
      const end = weightsOf(norm)
      expect(Object.keys(end)).toEqual(Object.keys(start))
      for (const [key, values] of Object.entries(end)) expect(values, key).not.toEqual(start[key])
      // Two batches in each epoch, and every step of time has a count of its own in BNTT.
      for (const [key, values] of Object.entries(end)) {
        if (key.endsWith('num_batches_tracked')) expect(values, key).toEqual([24])
      }
      // One scalar of the history per epoch.
      expect(tensors.after - tensors.before).toBeLessThanOrEqual(5)

      const before = weightsOf(norm)
      const predicted = tf.argMax(model.predict(x) as tf.Tensor, 1).dataSync()
      expect(weightsOf(norm)).toEqual(before)
      const right = [...predicted].filter((label, n) => label === n % 2).length
      expect(right).toBeGreaterThanOrEqual(N - 1)
    })
  }
})

describe('a layer', () => {
  it('has the weights of PyTorch, running statistics not trained', () => {
    const layer = own.temporalEffectiveBatchNorm1d({ inputShape: [T, C], name: 'tebn' })
    tfl.sequential({ layers: [layer] })
    expect(layer.trainableWeights.map(({ name }) => name)).toEqual(['tebn/scale', 'tebn/weight', 'tebn/bias'])
    expect(layer.nonTrainableWeights.map(({ name }) => name)).toEqual([
      'tebn/running_mean',
      'tebn/running_var',
      'tebn/num_batches_tracked',
    ])
    expect(layer.computeOutputShape([null, T, C])).toEqual([null, T, C])
    expect(layer.countParams()).toBe(T + C + C + C + C + 1)
  })

  it('computes what its module computes as an op, in training and in prediction', () => {
    const layer = own.thresholdDependentBatchNorm2d({ alpha: 2, vTh: 0.5, eps: 1e-3 })
    const twin = new ThresholdDependentBatchNorm2d(2, 0.5, C, { channelsLast: true, eps: 1e-3 })
    const apply = op(twin, { batchFirst: true })
    for (const training of [true, true, false]) {
      const x = tfTensor(training ? 1 : 2, [N, T, H, W, C])
      twin.train(training)
      const y = layer.apply(x, { training }) as tf.Tensor
      expectClose('y', y.dataSync(), apply(x).dataSync(), EXACT)
    }
    expect(weightsOf(layer).running_var).toEqual([...twin.stateDict().running_var!.toTypedArray()])
    expect((layer as own.SpikenormLayer).module).toBeInstanceOf(ThresholdDependentBatchNorm2d)
  })

  it('without time and with momentum turned round is the BatchNormalization of tf.layers', () => {
    const mine = own.batchNorm2d({ stepMode: 's', momentum: 0.1, eps: 1e-3 })
    const theirs = tfl.layers.batchNormalization({ momentum: 0.9, epsilon: 1e-3 })
    const [x, dy] = [tfTensor(1, [N, H, W, C]), tfTensor(2, [N, H, W, C])]
    for (const training of [true, false]) {
      const [got, expected] = [mine, theirs].map((layer) => {
        const f = (input: tf.Tensor) => layer.apply(input, { training }) as tf.Tensor
        return [f(x), tf.grad(f)(x, dy)].map((value) => value.dataSync())
      }) as [Float32Array[], Float32Array[]]
      // The running variance is the unbiased one here, and the biased one there.
      if (!training) continue
      expectClose('y', got[0]!, expected[0]!, peer(expected[0]!))
      expectClose('dx', got[1]!, expected[1]!, peer(dy.dataSync()))
    }
    expectClose(
      'running mean',
      weightsOf(mine).running_mean!,
      weightsOf(theirs).moving_mean!,
      peer(weightsOf(theirs).moving_mean!),
    )
  })

  it('takes what comes with time first and channels first, where told', () => {
    const args = { channelsLast: false, batchFirst: false }
    const layers = [own.batchNormThroughTime2d(args), own.neuNorm(args), own.batchNorm1d(args)]
    const shapes = [
      [T, N, C, H, W],
      [T, N, C, H, W],
      [T, N, C],
    ]
    for (const [i, layer] of layers.entries()) {
      const x = tfTensor(3, shapes[i]!)
      const y = layer.apply(x, { training: true }) as tf.Tensor
      const { module } = layer as own.SpikenormLayer
      const twin = (module as Module & { channelsLast: boolean }).channelsLast
      expect(twin).toBe(false)
      expect(y.shape).toEqual(x.shape)
    }
    expect(weightsOf(layers[0]!)['bn_list.2.running_mean']!.length).toBe(C)
    expect(layers[1]!.weights[0]!.read().shape).toEqual([C, H, W])
  })

  it('starts every call anew: a second sequence is not the continuation of the first', () => {
    for (const layer of [own.neuNorm(), own.batchNormThroughTime2d(), own.ifNode()]) {
      const x = tfTensor(4, [N, T, H, W, C])
      const [first, second] = [1, 2].map(() => (layer.apply(x) as tf.Tensor).dataSync())
      expect([...first!]).toEqual([...second!])
    }
  })

  it('refuses what is no argument of it', () => {
    const wrong: [(args: object) => unknown, unknown, string][] = [
      [
        own.batchNorm2d,
        { epsilon: 1e-3 },
        "BatchNorm2d: options: there is no option 'epsilon'; did you mean eps?",
      ],
      [own.batchNorm2d, { step_mode: 's' }, 'did you mean stepMode?'],
      [own.batchNorm2d, { tau: 2 }, "no option 'tau'"],
      [own.batchNorm2d, 3, 'write batchNorm2d(options)'],
      [own.thresholdDependentBatchNorm2d, { v_th: 1 }, 'did you mean vTh?'],
      [own.neuNorm, { momentum: 0.1 }, "no option 'momentum'"],
      [own.ifNode, { tau: 2 }, "no option 'tau'"],
      [own.lifNode, { v_threshold: 1 }, 'did you mean vThreshold?'],
      [own.lifNode, { batchFirst: 1 }, 'batchFirst: expected true or false, got 1'],
      [own.lifNode, { trainable: 'no' }, "trainable: expected true or false, got 'no'"],
    ]
    for (const [make, args, message] of wrong) {
      expectCode('ERR_ARGUMENT', () => make(args as object), message)
    }
    const built = own.batchNorm2d({ eps: -1, inputShape: [T, H, W, C] })
    expectCode('ERR_ARGUMENT', () => tfl.sequential({ layers: [built] }), 'BatchNorm2d: eps')
    expectCode('ERR_STEP_MODE', () =>
      own.batchNorm2d({ stepMode: 'x' as 's' }).apply(tf.ones([2, 3, 4, 4, 1])),
    )
  })

  it('says what it misses', () => {
    const unknown = own.temporalEffectiveBatchNorm2d({ inputShape: [null, H, W, C] })
    expectCode(
      'ERR_SHAPE',
      () => tfl.sequential({ layers: [unknown] }),
      'known number of time steps at axis 1',
    )
    expectCode('ERR_ARGUMENT', () => (own.neuNorm() as own.SpikenormLayer).module, 'not been built')
    const layer = own.batchNorm2d()
    // As a second copy of tf.layers makes it: no SymbolicTensor of this one.
    class SymbolicTensor {
      shape = [null, T, H, W, C]
    }
    const foreign = new SymbolicTensor() as unknown as tf.Tensor
    const rank5 = own.batchNorm2d()
    rank5.build([null, T, H, W, C])
    expectCode('ERR_ARGUMENT', () => rank5.call(foreign, {}), 'another copy of @tensorflow/tfjs-layers')
    const strings = tf.fill([N, T, H, W, C], 'a', 'string')
    expectCode('ERR_DTYPE', () => layer.apply(strings), 'BatchNorm2d: input', 'string')
    const x = tf.zeros([N, T, H, W, C])
    expectCode('ERR_ARGUMENT', () => layer.apply([x, x]), 'BatchNorm2d: input: expected one tensor, got 2')
  })
})

describe('integers', () => {
  it('train and predict as the same numbers in float32 do', async () => {
    const shape = [N, T, H, W, C]
    const numbers = Int32Array.from({ length: sizeOfShape(shape) }, (_, i) => (i * 7) % 5)
    const labels = tf.oneHot(
      tf.tensor1d(
        [...numbers.slice(0, N)].map((value) => value % 2),
        'int32',
      ),
      2,
    )
    const results = []
    for (const x of [tf.tensor(Float32Array.from(numbers), shape), tf.tensor(numbers, shape, 'int32')]) {
      const norm = own.thresholdDependentBatchNorm2d({ inputShape: shape.slice(1) })
      const kernelInitializer = tfl.initializers.glorotUniform({ seed: 5 })
      const dense = tfl.layers.dense({ units: 2, activation: 'softmax', kernelInitializer })
      const model = tfl.sequential({ layers: [norm, own.lifNode(), tfl.layers.flatten(), dense] })
      model.compile({ optimizer: 'sgd', loss: 'categoricalCrossentropy' })
      const { history } = await model.fit(x, labels, { epochs: 3, verbose: 0, shuffle: false, batchSize: 6 })
      const predicted = (model.predict(x, { batchSize: 5 }) as tf.Tensor).dataSync()
      results.push([history.loss, [...predicted], Object.values(weightsOf(norm))])
    }
    expect(results[1]).toEqual(results[0])
  })
})

describe('a frozen layer', () => {
  const shape = [T, H, W, C]
  const x = () => tfTensor(1, [N, ...shape])
  const y = () =>
    tf.oneHot(
      tf.tensor1d(
        Array.from({ length: N }, (_, n) => n % 2),
        'int32',
      ),
      2,
    )
  const readOut = () => tfl.layers.dense({ units: 2, activation: 'softmax' })
  const trainOn = (model: tfl.LayersModel) => {
    model.compile({ optimizer: tf.train.adam(0.1), loss: 'categoricalCrossentropy' })
    return model.fit(x(), y(), { epochs: 2, verbose: 0 })
  }
  const made: [string, (args: object) => tfl.layers.Layer][] = [
    ['BatchNorm2d', own.batchNorm2d],
    ['TemporalEffectiveBatchNorm2d', own.temporalEffectiveBatchNorm2d],
    ['BatchNormThroughTime2d', own.batchNormThroughTime2d],
    ['NeuNorm', own.neuNorm],
  ]
  for (const [name, make] of made) {
    it(`of ${name} is not changed by training, which uses its running statistics`, async () => {
      const layer = make({ inputShape: shape, trainable: false })
      const model = tfl.sequential({ layers: [layer, tfl.layers.flatten(), readOut()] })
      const before = weightsOf(layer)
      const predicted = (layer.apply(x()) as tf.Tensor).dataSync()
      await trainOn(model)
      expect(weightsOf(layer)).toEqual(before)
      const inTraining = layer.apply(x(), { training: true }) as tf.Tensor
      expect([...inTraining.dataSync()]).toEqual([...predicted])
      expect(layer.trainableWeights).toEqual([])
      // What lies before it still learns.
      const dx = tf.grad((input: tf.Tensor) => layer.apply(input, { training: true }) as tf.Tensor)(x())
      expect([...dx.dataSync()].some((value) => value !== 0)).toBe(true)
      // Thawed, it trains again.
      layer.trainable = true
      await trainOn(model)
      for (const [key, values] of Object.entries(weightsOf(layer))) {
        expect(values, key).not.toEqual(before[key])
      }
    })
  }

  it('is one whose model is frozen', async () => {
    const norm = own.batchNorm2d()
    const input = tfl.input({ shape })
    const base = tfl.model({ inputs: input, outputs: norm.apply(input) as tfl.SymbolicTensor })
    base.trainable = false
    const start = tfl.input({ shape })
    const features = tfl.layers.flatten().apply(base.apply(start))
    const outputs = readOut().apply(features) as tfl.SymbolicTensor
    const before = weightsOf(norm)
    await trainOn(tfl.model({ inputs: start, outputs }))
    expect(weightsOf(norm)).toEqual(before)
    base.trainable = true
    await trainOn(tfl.model({ inputs: start, outputs }))
    expect(weightsOf(norm).running_mean).not.toEqual(before.running_mean)
  })
})

describe('a model is saved and loaded', () => {
  it('with every option of every layer', async () => {
    const norm = {
      batchFirst: true,
      eps: 1e-3,
      momentum: null,
      affine: false,
      trackRunningStats: false,
      channelsLast: true,
    }
    const neuron = { vThreshold: 0.5, vReset: null, surrogate: 'atan', detachReset: true } as const
    const layers = [
      own.batchNorm2d({ ...norm, stepMode: 'm', inputShape: [T, H, W, C] }),
      own.thresholdDependentBatchNorm2d({ ...norm, alpha: 2, vTh: 0.5, trainable: false }),
      own.temporalEffectiveBatchNorm2d(norm),
      own.batchNormThroughTime2d(norm),
      own.neuNorm({ k: 0.5, sharedAcrossChannels: true, channelsLast: true, batchFirst: true }),
      own.ifNode({ ...neuron, batchFirst: true }),
      own.lifNode({ ...neuron, tau: 3, decayInput: false, batchFirst: true }),
    ]
    const model = tfl.sequential({ layers })
    let saved: tf.io.ModelArtifacts | undefined
    await model.save(
      tf.io.withSaveHandler(async (artifacts) => {
        saved = { ...artifacts, modelTopology: JSON.parse(JSON.stringify(artifacts.modelTopology)) }
        return { modelArtifactsInfo: { dateSaved: new Date(0), modelTopologyType: 'JSON' } }
      }),
    )
    const loaded = await tfl.loadLayersModel(tf.io.fromMemory(saved!))
    expect(loaded.layers.map((layer) => layer.getConfig())).toEqual(layers.map((layer) => layer.getConfig()))
    for (const [i, layer] of layers.entries()) {
      const mine = layer.module as unknown as Record<string, unknown>
      const theirs = (loaded.layers[i] as own.SpikenormLayer).module as unknown as Record<string, unknown>
      const options = Object.keys(layer.getConfig()).filter((key) => mine[key] !== undefined)
      expect(options.length, layer.name).toBeGreaterThan(2)
      for (const key of options) expect(theirs[key], `${layer.name} ${key}`).toEqual(layer.getConfig()[key])
    }
    const input = tfTensor(1, [2, T, H, W, C])
    const [got, expected] = [loaded, model].map((each) => (each.predict(input) as tf.Tensor).dataSync())
    expect([...got!]).toEqual([...expected!])
  })

  for (const [name, make] of norms) {
    it(`with ${name}: the same predictions, statistics and options`, async () => {
      const norm = make()
      const model = spikingModel(norm)
      const { x, y } = patterns()
      await model.fit(x, y, { epochs: 2, verbose: 0, yieldEvery: 'never' })
      let saved: tf.io.ModelArtifacts | undefined
      await model.save(
        tf.io.withSaveHandler(async (artifacts) => {
          // As it would lie in a file.
          saved = { ...artifacts, modelTopology: JSON.parse(JSON.stringify(artifacts.modelTopology)) }
          return { modelArtifactsInfo: { dateSaved: new Date(0), modelTopologyType: 'JSON' } }
        }),
      )
      const loaded = await tfl.loadLayersModel(tf.io.fromMemory(saved!))
      const [got, expected] = [loaded, model].map((each) => (each.predict(x) as tf.Tensor).dataSync())
      expectClose('predictions', got!, expected!, EXACT)
      expect(weightsOf(loaded.layers[1]!)).toEqual(weightsOf(norm))
      const { name: _, ...config } = norm.getConfig()
      const { name: __, ...again } = loaded.layers[1]!.getConfig()
      expect(again).toEqual(config)
      expect(loaded.layers[1]!.getClassName()).toBe(`Spikenorm${name}`)
    })
  }

  it('and setWeights takes what getWeights gave, statistics among them', () => {
    const [a, b] = [own.batchNorm2d(), own.batchNorm2d()]
    const x = tfTensor(1, [N, T, H, W, C])
    for (let i = 0; i < 3; i++) a.apply(x, { training: true })
    b.apply(tfTensor(2, [N, T, H, W, C]), { training: true })
    b.setWeights(a.getWeights())
    expect(weightsOf(b)).toEqual(weightsOf(a))
    expectClose('y', (b.apply(x) as tf.Tensor).dataSync(), (a.apply(x) as tf.Tensor).dataSync(), EXACT)
    // The next step goes on from them.
    a.apply(x, { training: true })
    b.apply(x, { training: true })
    expect(weightsOf(b)).toEqual(weightsOf(a))
    expect(weightsOf(b).num_batches_tracked).toEqual([4])
  })
})
