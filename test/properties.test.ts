// Random shapes, options and sequences of calls: every class in every step mode and dtype against the float64
// reference, as two machines that are given the same commands.

import fc from 'fast-check'
import { expect, it } from 'vitest'
import { type Device, enableGrad, NeuNorm, noGrad, type StepMode, tensor } from '../src/index.js'
import { expectClose, expectTensor } from './support/compare.js'
import { describeOnDevices } from './support/devices.js'
import {
  createLayer,
  createReference,
  DTYPES,
  inputShape,
  type LayerOptions,
  loadRandomState,
  NORM_CLASSES,
  type NormClass,
  randomInput,
  toTensor,
} from './support/layers.js'
import { normal } from './support/numbers.js'
import { type Grid, ReferenceNeuNorm, sizeOf } from './support/reference.js'
import { EXACT, type FloatType, largest, parameterType, random } from './support/tolerances.js'

/** Sequences per class, step mode and dtype: the same in every run, unless FC_SEED or FC_RUNS says otherwise. */
const RUNS = Number(process.env.FC_RUNS ?? 15)
const parameters = { numRuns: RUNS, seed: Number(process.env.FC_SEED ?? 20240607) }

const commands = fc.array(
  fc.record({
    act: fc.constantFrom(
      'forward',
      'forward',
      'recordedForward',
      'unrecordedForward',
      'backward',
      'train',
      'eval',
      'toggleTracking',
      'reset',
      'detach',
      'zeroGrad',
    ),
    steps: fc.integer({ min: 1, max: 3 }),
    batch: fc.integer({ min: 1, max: 4 }),
    seed: fc.nat(1e6),
    mean: fc.constantFrom(0, 0, 2, -30),
    deviation: fc.constantFrom(1, 0.3, 5),
  }),
  { minLength: 2, maxLength: 9 },
)

const scenario = fc.record({
  channels: fc.integer({ min: 1, max: 5 }),
  steps: fc.integer({ min: 1, max: 4 }),
  extents: fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 3, maxLength: 3 }),
  dropExtent: fc.boolean(),
  eps: fc.constantFrom(1e-5, 1e-3, 0.1),
  momentum: fc.constantFrom(0.1, null, 0, 1, 0.37),
  affine: fc.boolean(),
  track: fc.boolean(),
  alpha: fc.constantFrom(1, 0.5),
  vTh: fc.constantFrom(1, 0.6, 2),
  seed: fc.nat(1e6),
  commands,
})

type Scenario = typeof scenario extends fc.Arbitrary<infer T> ? T : never

function runNorm(
  kind: NormClass,
  stepMode: StepMode,
  dtype: FloatType,
  device: Device,
  given: Scenario,
): void {
  // 1d takes [N, C] as well as [N, C, L].
  const extents = kind.spatial === 1 && given.dropExtent ? [] : given.extents.slice(0, kind.spatial)
  const pixels = extents.reduce((product, extent) => product * extent, 1)
  const { commands: _, extents: __, dropExtent: ___, seed: ____, ...rest } = given
  const options: LayerOptions = { ...rest, stepMode, dtype, device }
  const layer = createLayer(kind, options)
  const reference = createReference(kind, options)
  loadRandomState(layer, reference, given.seed, dtype)
  const shapes: { shape: number[]; dy: number }[] = []
  let largestDy = 0
  // Running statistics are sums with earlier ones, whose rounding stays when the sum gets small; a mean may be
  // small beside the values it is of.
  const sizes = new Map<string, number>()
  let largestInput = 0

  const forward = (command: Scenario['commands'][number], mode: 'default' | 'on' | 'off') => {
    const wanted = stepMode === 's' ? 1 : kind.family === 'temporal' ? given.steps : command.steps
    if (kind.family === 'throughTime' && reference.step + wanted > given.steps) {
      layer.reset()
      reference.reset()
      shapes.length = 0
    }
    const t = kind.family === 'throughTime' ? Math.min(wanted, given.steps) : wanted
    // Two values per row at least, and then some: two values alone make an ill-conditioned problem of any layer.
    const n = command.batch + (pixels === 1 ? 2 : 0) + (pixels === 2 ? 1 : 0)
    const grid: Grid = { t, n, c: given.channels, s: pixels }
    const shape = inputShape(stepMode, grid, extents)
    const values = randomInput(command.seed, sizeOf(grid), dtype, command.mean, command.deviation)
    const x = toTensor(values, shape, dtype, device)
    largestInput = Math.max(largestInput, largest(values))
    const recorded = mode === 'default' ? layer.training : mode === 'on'
    const call = () => layer.forward(x)
    const y = mode === 'default' ? call() : mode === 'on' ? enableGrad(call) : noGrad(call)
    const usesRunning = !reference.training && given.track
    const expected = reference.forward(values, grid, recorded)
    // With running statistics x − μ is a difference of two rounded numbers; the batch's own mean is kept exactly.
    const terms = usesRunning ? reference.gain * largest(values, reference.runningMean) : 0
    expectTensor('y', y, { shape, values: expected, dtype }, random('y', dtype, expected, terms))
    if (recorded) shapes.push({ shape, dy: command.seed + 1 })
  }

  const backward = () => {
    const call = shapes.pop()
    if (!call) return
    const size = call.shape.reduce((product, extent) => product * extent, 1)
    const values = randomInput(call.dy, size, dtype)
    largestDy = Math.max(largestDy, largest(values))
    const dx = layer.backward(toTensor(values, call.shape, dtype, device))
    const expected = reference.backward(values)
    const gate = random('dx', dtype, expected, reference.gain * largest(values))
    expectTensor('dx', dx, { shape: call.shape, values: expected, dtype }, gate)
  }

  const check = () => {
    expect(layer.pendingForwards).toBe(reference.pending)
    const state = layer.stateDict()
    expect(Object.keys(state).sort()).toEqual([...reference.state().keys()].sort())
    for (const [name, values] of reference.state()) {
      const size = Math.max(sizes.get(name) ?? 0, largest(values), name.endsWith('mean') ? largestInput : 0)
      sizes.set(name, size)
      const gate = name.endsWith('tracked') ? EXACT : random('state', dtype, values, size)
      expectClose(name, state[name]!.toFloat64Array(), values, gate)
    }
    const named = new Map(layer.namedParameters())
    for (const [name, values] of reference.grads()) {
      const grad = named.get(name)?.grad
      if (grad) expect(grad.dtype).toBe(parameterType(dtype))
      const got = grad?.toFloat64Array() ?? new Float64Array(values.length)
      expectClose(`gradient of ${name}`, got, values, random('grad', dtype, values, largestDy))
    }
  }

  const actions: Record<string, (command: Scenario['commands'][number]) => void> = {
    forward: (command) => forward(command, 'default'),
    recordedForward: (command) => forward(command, 'on'),
    unrecordedForward: (command) => forward(command, 'off'),
    backward,
    train: () => {
      layer.train()
      reference.training = true
    },
    eval: () => {
      layer.eval()
      reference.training = false
    },
    toggleTracking: () => {
      layer.trackRunningStats = !layer.trackRunningStats
      reference.tracking = !reference.tracking
    },
    reset: () => {
      layer.reset()
      reference.reset()
      shapes.length = 0
    },
    detach: () => layer.detach(),
    zeroGrad: () => {
      layer.zeroGrad()
      reference.zeroGrad()
    },
  }
  for (const command of given.commands) {
    actions[command.act]!(command)
    check()
  }
  while (shapes.length > 0) backward()
  check()
}

describeOnDevices('any sequence of calls gives the numbers of the float64 reference', (device) => {
  for (const kind of NORM_CLASSES) {
    for (const stepMode of kind.stepModes) {
      for (const dtype of DTYPES) {
        it(`${kind.name} in step mode '${stepMode}' and ${dtype}`, () => {
          fc.assert(
            fc.property(scenario, (given) => runNorm(kind, stepMode, dtype, device, given)),
            parameters,
          )
        })
      }
    }
  }
})

function runNeuNorm(stepMode: StepMode, dtype: FloatType, device: Device, given: Scenario): void {
  const [height, width] = given.extents as [number, number]
  const { channels, affine: sharedAcrossChannels } = given
  const k = given.momentum ?? 0.9
  const layer = new NeuNorm(channels, height, width, { k, sharedAcrossChannels, stepMode, dtype, device })
  const reference = new ReferenceNeuNorm(channels, height * width, k, sharedAcrossChannels)
  reference.weight.set(randomInput(given.seed, reference.weight.length, parameterType(dtype)))
  const rows = sharedAcrossChannels ? 1 : channels
  layer.loadStateDict({ w: tensor(reference.weight, [rows, height, width], { device }) })
  const calls: { shape: number[]; dy: number }[] = []
  let n = 0
  let largestTerm = 0

  const forward = (command: Scenario['commands'][number], mode: 'default' | 'on' | 'off') => {
    // The batch may change only where there is no state.
    n = reference.state ? n : command.batch
    const grid: Grid = { t: stepMode === 's' ? 1 : command.steps, n, c: channels, s: height * width }
    const shape = inputShape(stepMode, grid, [height, width])
    const values = randomInput(command.seed, sizeOf(grid), dtype, command.mean, command.deviation)
    const call = () => layer.forward(toTensor(values, shape, dtype, device))
    const recorded = mode === 'default' ? layer.training : mode === 'on'
    const y = mode === 'default' ? call() : mode === 'on' ? enableGrad(call) : noGrad(call)
    const expected = reference.forward(values, grid, recorded)
    largestTerm = Math.max(largestTerm, largest(expected, values))
    expectTensor('y', y, { shape, values: expected, dtype }, random('y', dtype, expected, largestTerm))
    if (recorded) calls.push({ shape, dy: command.seed + 1 })
  }
  const backward = () => {
    const call = calls.pop()
    if (!call) return
    const size = call.shape.reduce((product, extent) => product * extent, 1)
    const values = randomInput(call.dy, size, dtype)
    const dx = layer.backward(toTensor(values, call.shape, dtype, device))
    const expected = reference.backward(values)
    expectTensor('dx', dx, { shape: call.shape, values: expected, dtype }, random('dx', dtype, expected))
    const got = layer.parameters()[0]?.grad?.toFloat64Array() ?? []
    expectClose('dw', got, reference.weightGrad, random('grad', dtype, reference.weightGrad, largestTerm))
  }
  const both = (act: 'reset' | 'detach' | 'zeroGrad') => {
    layer[act]()
    reference[act]()
    if (act === 'reset') calls.length = 0
  }
  const actions: Record<string, (command: Scenario['commands'][number]) => void> = {
    forward: (command) => forward(command, 'default'),
    recordedForward: (command) => forward(command, 'on'),
    unrecordedForward: (command) => forward(command, 'off'),
    backward,
    train: () => layer.train(),
    eval: () => layer.eval(),
    reset: () => both('reset'),
    detach: () => both('detach'),
    zeroGrad: () => both('zeroGrad'),
  }
  for (const command of given.commands) {
    actions[command.act]?.(command)
    expect(layer.pendingForwards).toBe(reference.pending)
  }
  while (calls.length > 0) backward()
}

describeOnDevices(
  'any sequence of NeuNorm calls carries state and gradients as the reference does',
  (device) => {
    for (const stepMode of ['s', 'm'] as const) {
      for (const dtype of DTYPES) {
        it(`step mode '${stepMode}' and ${dtype}`, () => {
          fc.assert(
            fc.property(scenario, (given) => runNeuNorm(stepMode, dtype, device, given)),
            { ...parameters, numRuns: 3 * RUNS },
          )
        })
      }
    }
  },
)

describeOnDevices('an empty batch in evaluation mode', (device) => {
  for (const kind of NORM_CLASSES) {
    it(`goes through ${kind.name} forwards and backwards, and its gradients are zero`, () => {
      const grid: Grid = { t: 2, n: 0, c: 3, s: 4 }
      const stepMode = kind.stepModes.at(-1)!
      const shape = inputShape(stepMode, grid, [[4], [2, 2], [1, 2, 2]][kind.spatial - 1]!)
      for (const dtype of DTYPES) {
        const layer = createLayer(kind, { channels: grid.c, steps: grid.t, stepMode, dtype, device })
        layer.eval()
        const empty = toTensor(new Float64Array(0), shape, dtype, device)
        const y = enableGrad(() => layer.forward(empty))
        const dx = layer.backward(empty)
        for (const tensor of [y, dx]) expect(tensor.shape).toEqual(shape)
        for (const { grad } of layer.parameters()) {
          expect(grad?.toFloat64Array().every((value) => value === 0)).toBe(true)
        }
      }
    })
  }
})

describeOnDevices('a channel with NaN or infinity', (device) => {
  for (const kind of NORM_CLASSES) {
    it(`leaves every other channel of ${kind.name} as it was, bit by bit`, () => {
      const channels = 9
      const grid: Grid = { t: 2, n: 3, c: channels, s: 4 }
      const stepMode = kind.stepModes.at(-1)!
      const extents = [[4], [2, 2], [1, 2, 2]][kind.spatial - 1]!
      const shape = inputShape(stepMode, grid, extents)
      const clean = normal(7, sizeOf(grid))
      const channelOf = (i: number) => Math.floor(i / grid.s) % channels
      for (const poison of [Number.NaN, Number.POSITIVE_INFINITY]) {
        for (const dtype of DTYPES) {
          const run = (values: Float64Array) => {
            const layer = createLayer(kind, { channels, steps: grid.t, stepMode, dtype, device })
            const y = layer.forward(toTensor(values, shape, dtype, device))
            const dx = layer.backward(toTensor(clean, shape, dtype, device))
            return [y.toFloat64Array(), dx.toFloat64Array()]
          }
          const poisoned = clean.slice()
          poisoned[clean.findIndex((_, i) => channelOf(i) === 5)] = poison
          const [before, after] = [run(clean), run(poisoned)]
          before.forEach((values, which) => {
            const untouched = (_: number, i: number) => channelOf(i) !== 5
            const got = after[which]!.filter(untouched)
            expectClose(which === 0 ? 'y' : 'dx', got, values.filter(untouched), EXACT)
          })
          const own = after[0]!.filter((_, i) => channelOf(i) === 5)
          expect(own.some(Number.isNaN), 'NaN shows in its own channel').toBe(true)
        }
      }
    })
  }
})
