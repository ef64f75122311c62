// Runs golden cases (test/golden/README.md): one safetensors file each, whose metadata key `case` is a script of
// calls with the numbers that SpikingJelly on PyTorch autograd gave in float64. Public API only.

import type { Device, Module, StepMode, Tensor } from '../../src/index.js'
import * as api from '../../src/index.js'
import { expectClose, expectCode, expectSameBits, expectTensor } from './compare.js'
import { roundTo } from './half.js'
import { readSafetensors, type StoredTensor } from './safetensors.js'
import {
  EXACT,
  type FloatType,
  golden,
  isHalf,
  largest,
  parameterType,
  trainedLoss,
  trainedState,
  type Widened,
} from './tolerances.js'

interface Layer {
  module: string
  args: Record<string, unknown>
  children?: Layer[]
}

interface Step {
  do: string
  x?: string
  y?: string
  throws?: string
  dy?: string
  dx?: string
  grads?: Record<string, string>
  state?: Record<string, string>
  value?: unknown
  labels?: string
  optimizer?: { name: string } & Record<string, unknown>
  losses?: number[]
}

export interface GoldenCase extends Layer {
  name: string
  inputs: FloatType
  init?: Record<string, string>
  steps: Step[]
  tolerance?: Widened
  note?: string
  tensors: Map<string, StoredTensor>
}

export function readCase(path: string): GoldenCase {
  const { metadata, tensors } = readSafetensors(path)
  return { ...(JSON.parse(metadata.case ?? '') as Omit<GoldenCase, 'tensors'>), tensors }
}

/**
 * Dtypes a case's numbers hold in: a half type only where the inputs say so. A case with an error holds in all, so
 * the half types run it for its errors alone.
 */
export function dtypesOf(given: GoldenCase): { dtype: FloatType; errorsOnly: boolean }[] {
  const throwing = given.steps.some((step) => step.throws)
  const all: FloatType[] = ['float64', 'float32', 'float16', 'bfloat16']
  return all
    .map((dtype) => ({ dtype, errorsOnly: isHalf(dtype) && dtype !== given.inputs }))
    .filter(({ errorsOnly }) => !errorsOnly || throwing)
}

// What the constructors take by position; everything else is an option (design.md, public API).
const POSITIONS: [RegExp, string[]][] = [
  [/^BatchNorm[123]d$/, ['numFeatures']],
  [/^ThresholdDependentBatchNorm/, ['alpha', 'vTh', 'numFeatures']],
  [/^(TemporalEffectiveBatchNorm|BatchNormThroughTime)/, ['T', 'numFeatures']],
  [/^NeuNorm$/, ['inChannels', 'height', 'width']],
  [/^nn\.Conv2d$/, ['inChannels', 'outChannels', 'kernelSize']],
  [/^nn\.Linear$/, ['inFeatures', 'outFeatures']],
  [/^nn\.(Avg|Max)Pool2d$/, ['kernelSize']],
]

type Constructor<T> = new (...args: unknown[]) => T

function lookUp<T>(name: string): Constructor<T> {
  const found = name
    .split('.')
    .reduce<unknown>((scope, part) => (scope as Record<string, unknown>)?.[part], api)
  if (typeof found !== 'function') throw new Error(`the public API has no ${name}`)
  return found as Constructor<T>
}

/** A fresh module as a case describes it. */
export function buildModule({ module, args, children }: Layer): Module {
  const create = lookUp<Module>(module)
  if (children) return new create(...children.map(buildModule))
  const positions = POSITIONS.find(([name]) => name.test(module))?.[1] ?? []
  const options = Object.fromEntries(Object.entries(args).filter(([name]) => !positions.includes(name)))
  return new create(...positions.map((name) => args[name]), options)
}

class Run {
  readonly module: Module
  /** Largest |dy| since the gradients were last zeroed: what parameter gradients are held to. */
  private largestDy = 0
  private trained = false
  private readonly label: (step: number, what: string) => string

  constructor(
    readonly given: GoldenCase,
    readonly dtype: FloatType,
    readonly device: Device,
    readonly errorsOnly: boolean,
  ) {
    this.label = (step, what) => `${given.name} in ${dtype} on ${device}, step ${step}: ${what}`
    this.module = buildModule(given).to(parameterType(dtype)).to(device)
    if (given.init && Object.keys(given.init).length > 0) {
      const entries = Object.entries(given.init).map(([name, key]) => {
        const { values, shape, dtype: stored } = this.stored(key)
        const type = stored === 'I64' ? 'int64' : 'float64'
        return [name, api.tensor([...values], shape, { dtype: type, device })] as const
      })
      this.module.loadStateDict(Object.fromEntries(entries))
    }
  }

  private stored(key: string | undefined): StoredTensor {
    const found = this.given.tensors.get(key ?? '')
    if (!found) throw new Error(`${this.given.name}: the file has no tensor '${key}'`)
    return found
  }

  private input(key: string | undefined): Tensor {
    const { values, shape } = this.stored(key)
    return api.tensor(values, [...shape], { dtype: this.dtype, device: this.device })
  }

  private forward(x: Tensor): Tensor {
    // Cases go backward from eval forwards too, and those are recorded only on request.
    return this.module.training ? this.module.forward(x) : api.enableGrad(() => this.module.forward(x))
  }

  run(): void {
    this.given.steps.forEach((step, at) => {
      this.step(step, (what) => this.label(at, what))
    })
  }

  private step(step: Step, label: (what: string) => string): void {
    const actions: Record<string, () => unknown> = {
      forward: () => (step.throws ? this.throwing(step, label) : this.forwardStep(step, label)),
      backward: () => this.backwardStep(step, label),
      expectGrads: () => this.expectGrads(step.grads ?? {}, label),
      expectState: () => this.expectState(step.state ?? {}, label),
      train3: () => this.trainSteps(step, label),
      train: () => this.module.train(),
      eval: () => this.module.eval(),
      reset: () => api.functional.resetNet(this.module),
      detach: () => api.functional.detachNet(this.module),
      zeroGrad: () => this.zeroGrad(),
      stepMode: () => api.functional.setStepMode(this.module, step.value as StepMode),
      trackRunningStats: () => {
        for (const module of this.module.modules()) {
          if ('trackRunningStats' in module) module.trackRunningStats = step.value
        }
      },
    }
    const action = actions[step.do]
    if (!action) throw new Error(`${this.given.name}: no such step: ${step.do}`)
    action()
  }

  private zeroGrad(): void {
    this.largestDy = 0
    this.module.zeroGrad()
  }

  private forwardStep(step: Step, label: (what: string) => string): void {
    const y = this.forward(this.input(step.x))
    if (this.errorsOnly) return
    const { values, shape } = this.stored(step.y)
    this.expectActivation('y', label('y'), y, values, shape)
  }

  private throwing(step: Step, label: (what: string) => string): void {
    const before = this.module.stateDict()
    expectCode(step.throws as string, () => this.forward(this.input(step.x)), this.module.constructor.name)
    const after = this.module.stateDict()
    for (const [name, value] of Object.entries(before)) {
      expectSameBits(label(`${name} after ${step.throws}`), after[name] as Tensor, value)
    }
  }

  private backwardStep(step: Step, label: (what: string) => string): void {
    const { values, shape } = this.stored(step.dx)
    const dy = this.stored(step.dy).values
    this.largestDy = Math.max(this.largestDy, largest(dy))
    const dx = this.module.backward(this.input(step.dy))
    if (!this.errorsOnly) this.expectActivation('dx', label('dx'), dx, values, shape, largest(dy))
  }

  private expectActivation(
    quantity: 'y' | 'dx',
    label: string,
    got: Tensor,
    reference: Float64Array,
    shape: number[],
    dy = 0,
  ): void {
    // Half results are held to the reference as that dtype would write it down.
    const values = isHalf(this.dtype) ? reference.map((value) => roundTo(value, this.dtype)) : reference
    const { tolerance: widened, note } = this.given
    const gate = golden(quantity, this.dtype, values, {
      dy,
      ...(widened && { widened }),
      ...(note && { note }),
    })
    expectTensor(label, got, { shape, values, dtype: this.dtype }, gate)
  }

  private expectGrads(grads: Record<string, string>, label: (what: string) => string): void {
    if (this.errorsOnly) return
    const named = new Map(this.module.namedParameters())
    for (const [name, key] of Object.entries(grads)) {
      const grad = named.get(name)?.grad
      if (!grad) throw new Error(label(`${name} has no gradient`))
      const { values, shape } = this.stored(key)
      const { tolerance: widened, note } = this.given
      const options = { dy: this.largestDy, ...(widened && { widened }), ...(note && { note }) }
      const expected = { shape, values, dtype: parameterType(this.dtype) }
      expectTensor(label(`gradient of ${name}`), grad, expected, golden('grad', this.dtype, values, options))
    }
    for (const [name, { grad }] of named) {
      // What PyTorch leaves at None is null or all zero here.
      if (name in grads || !grad) continue
      expectClose(label(`gradient of ${name}`), grad.toFloat64Array(), new Float64Array(grad.size), EXACT)
    }
  }

  private expectState(state: Record<string, string>, label: (what: string) => string): void {
    const got = this.module.stateDict()
    const [have, want] = [Object.keys(got).sort(), Object.keys(state).sort()]
    if (have.join() !== want.join()) throw new Error(label(`stateDict has ${have}, expected ${want}`))
    if (this.errorsOnly) return
    for (const [name, key] of Object.entries(state)) {
      const { values, shape, dtype } = this.stored(key)
      const isCounter = dtype === 'I64'
      const expected = { shape, values, dtype: isCounter ? 'int64' : parameterType(this.dtype) }
      const gate = this.trained ? trainedState(this.dtype, values) : golden('state', this.dtype, values)
      expectTensor(label(name), got[name] as Tensor, expected, isCounter ? EXACT : gate)
    }
  }

  private trainSteps(step: Step, label: (what: string) => string): void {
    const { name, ...options } = step.optimizer ?? { name: '' }
    const parameters = this.module.parameters()
    const optimizer = new (lookUp<{ step(): void }>(`optim.${name}`))(parameters, options)
    const { values, shape } = this.stored(step.labels)
    const labels = api.tensor(BigInt64Array.from(values, BigInt), [...shape], { device: this.device })
    step.losses?.forEach((expected, at) => {
      api.functional.resetNet(this.module)
      const logits = this.module.forward(this.input(step.x))
      const { loss, grad } = api.nn.crossEntropy(logits, labels)
      this.module.backward(grad)
      optimizer.step()
      this.module.zeroGrad()
      const value = loss as unknown as number | Tensor
      const got = typeof value === 'number' ? value : (value.toFloat64Array()[0] as number)
      expectClose(label(`loss ${at}`), [got], [expected], trainedLoss(this.dtype, expected))
    })
    this.trained = true
  }
}

export function runCase(given: GoldenCase, dtype: FloatType, device: Device, errorsOnly = false): void {
  new Run(given, dtype, device, errorsOnly).run()
}
