// Whatever JavaScript value a public function, constructor, method or setter is given: it works, or throws a SpikenormError
// with a documented code and a message of bounded length. Never a TypeError or RangeError of the engine or of N-API.
import { mkdtempSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import * as library from '../src/index.js'
import { exported, invoke, isClass } from './support/exported.js'

const { Module, Tensor, nn, ones, optim, SpikenormError, tensor } = library

const REPORT = readFileSync(new URL('../etc/spikenorm.api.md', import.meta.url), 'utf8')
const CODES = new Set(REPORT.match(/'ERR_[A-Z_]+'/g)?.map((code) => code.slice(1, -1)))
/** Names of members that users see; others are between the library's own parts. */
const MEMBERS = new Set(
  [...REPORT.matchAll(/^ {4}(?:static |abstract |readonly |get |set )*(\w+)[(<?:]/gm)].map(
    ([, name]) => name,
  ),
)
/** As long as a message may be: what users pass is cut. */
const LONGEST_MESSAGE = 2200

function disposed<T extends { dispose(): void }>(value: T): T {
  value.dispose()
  return value
}

/** Made anew for each call, which may dispose of it. */
const ODD: Record<string, () => unknown> = {
  undefined: () => undefined,
  null: () => null,
  NaN: () => Number.NaN,
  'minus one': () => -1,
  zero: () => 0,
  one: () => 1,
  fraction: () => 1.5,
  'beyond integers': () => 2 ** 53,
  infinity: () => Number.POSITIVE_INFINITY,
  text: () => '3',
  'empty text': () => '',
  'long text': () => 'x'.repeat(1e4),
  'text of controls': () => '\u001b[31m\0\ud800',
  bigint: () => 3n,
  'negative bigint': () => -(2n ** 70n),
  symbol: () => Symbol('x'),
  boolean: () => true,
  object: () => ({}),
  'object of keys': () => Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`key${i}`, i])),
  'object with a tensor': () => ({ weight: ones([1]) }),
  'object with nothing': () => ({ weight: null }),
  'object without prototype': () => Object.create(null),
  'object that only looks like a tensor': () => Object.create(Tensor.prototype),
  'object that only looks like a module': () => Object.create(nn.Linear.prototype),
  'object that only looks like a norm': () => Object.create(library.BatchNorm2d.prototype),
  map: () => new Map(),
  date: () => new Date(0),
  promise: () => Promise.resolve(),
  array: () => [],
  numbers: () => [1, 2],
  'array of tensors': () => [ones([1])],
  'array of undefined': () => [undefined],
  'long array': () => new Array(1e4).fill('x'),
  'array in itself': () => {
    const array: unknown[] = []
    array.push(array)
    return array
  },
  'typed array': () => new Float32Array(2),
  'typed array of bigints': () => BigInt64Array.of(1n),
  'array buffer': () => new ArrayBuffer(8),
  function: () => () => undefined,
  'asynchronous function': () => async () => undefined,
  class: () => class {},
  tensor: () => ones([2, 3]),
  parameter: () => new nn.Linear(2, 3).weight,
  'disposed tensor': () => disposed(ones([2, 3])),
  'proxy of a tensor': () => new Proxy(ones([2, 3]), {}),
  'proxy of an object': () => new Proxy({}, {}),
  'proxy of a function': () => new Proxy(() => undefined, {}),
  module: () => new nn.Linear(3, 2),
  'disposed module': () => disposed(new nn.Linear(3, 2)),
  'proxy of a module': () => new Proxy(new nn.Linear(3, 2), {}),
  optimizer: () => new optim.SGD(new nn.Linear(3, 2).parameters()),
}

class Own extends Module {
  protected override computeForward(x: library.Tensor) {
    return x
  }
  protected override computeBackward(dy: library.Tensor) {
    return dy
  }
}

const linear = () => new nn.Linear(3, 2)
const m = { stepMode: 'm' } as const

/** An instance of every class that users get hold of; 1d and 3d have the members of 2d. */
const INSTANCES: Record<string, () => object> = {
  Tensor: () => tensor([1, 2, 3, 4, 5, 6], [2, 3]),
  Parameter: () => linear().weight,
  BatchNorm2d: () => new library.BatchNorm2d(3, m),
  ThresholdDependentBatchNorm2d: () => new library.ThresholdDependentBatchNorm2d(1, 1, 3),
  TemporalEffectiveBatchNorm2d: () => new library.TemporalEffectiveBatchNorm2d(2, 3),
  BatchNormThroughTime2d: () => new library.BatchNormThroughTime2d(2, 3),
  NeuNorm: () => new library.NeuNorm(3, 2, 2),
  Module: () => new Own(),
  Conv2d: () => new nn.Conv2d(3, 2, 1),
  Linear: linear,
  AvgPool2d: () => new nn.AvgPool2d(2),
  MaxPool2d: () => new nn.MaxPool2d(2),
  Flatten: () => new nn.Flatten(),
  Identity: () => new nn.Identity(),
  IFNode: () => new nn.IFNode(),
  LIFNode: () => new nn.LIFNode(),
  Sequential: () => new nn.Sequential(linear(), new nn.LIFNode()),
  Residual: () => new nn.Residual(new nn.Linear(3, 3)),
  PerStep: () => new nn.PerStep([linear(), linear()]),
  LossAndGrad: () => nn.crossEntropy(ones([2, 3]), [0, 1]),
  SGD: () => new optim.SGD(linear().parameters(), { momentum: 0.9 }),
  Adam: () => new optim.Adam(linear().parameters()),
  AdamW: () => new optim.AdamW(linear().parameters()),
  CosineAnnealingLR: () => new optim.CosineAnnealingLR(new optim.SGD(linear().parameters()), { tMax: 3 }),
}

/** Classes of which users make no instance, or none without a GPU. */
const NO_INSTANCES = [
  'CudaGraph',
  'NormLayer',
  'Optimizer',
  'SpikenormError',
  'cuda.Event',
  'Container',
  'Neuron',
  'Pool2d',
  'WeightedLayer',
  'ThresholdDependentBatchNorm',
]

/** Throws unless `call` works or throws what it may. */
function probe(what: string, call: () => unknown, problems: string[]): void {
  let problem: string | undefined
  try {
    const result = call()
    if (result instanceof Promise) result.catch(() => {})
  } catch (thrown) {
    const { name, code, message } = thrown as { name?: string; code?: string; message: string }
    // A class in the place of a callback is called as the function that it is not.
    if (/^Class constructor/.test(message)) return
    if (!(thrown instanceof SpikenormError)) problem = `${name}: ${message}`
    else if (!CODES.has(code as string) || code === 'ERR_INTERNAL') problem = `${code}: ${message}`
    else if (message.length > LONGEST_MESSAGE) problem = `a message of ${message.length} characters`
    else if (/napi|rust type/i.test(message)) problem = message
    else if (/\p{Cc}/u.test(message)) problem = 'control characters'
  }
  if (problem) problems.push(`${what} -> ${problem.slice(0, 160)}`)
}

/** Calls `call` with one odd value in each place of a good argument list, with none, and with odd ones alone. */
function probeWithOddValues(
  what: string,
  good: readonly unknown[],
  call: (args: unknown[]) => unknown,
  problems: string[],
) {
  probe(`${what}()`, () => call([]), problems)
  for (const [name, make] of Object.entries(ODD)) {
    probe(`${what}(${name})`, () => call([make()]), problems)
    probe(`${what}(${name}, ${name})`, () => call([make(), make()]), problems)
    for (let place = 0; place <= good.length; place++) {
      const args = [...good]
      args[place] = make()
      probe(`${what}: ${name} at ${place}`, () => call(args), problems)
    }
  }
}

/** Arguments with which a call works, for what needs some. */
const GOOD: Record<string, () => unknown[]> = {
  BatchNorm1d: () => [3, {}],
  BatchNorm2d: () => [3, {}],
  BatchNorm3d: () => [3, {}],
  ThresholdDependentBatchNorm1d: () => [1, 1, 3, {}],
  ThresholdDependentBatchNorm2d: () => [1, 1, 3, {}],
  ThresholdDependentBatchNorm3d: () => [1, 1, 3, {}],
  TemporalEffectiveBatchNorm1d: () => [2, 3, {}],
  TemporalEffectiveBatchNorm2d: () => [2, 3, {}],
  TemporalEffectiveBatchNorm3d: () => [2, 3, {}],
  BatchNormThroughTime1d: () => [2, 3, {}],
  BatchNormThroughTime2d: () => [2, 3, {}],
  BatchNormThroughTime3d: () => [2, 3, {}],
  NeuNorm: () => [3, 2, 2, {}],
  'nn.Conv2d': () => [3, 2, 1, {}],
  'nn.Linear': () => [3, 2, {}],
  'nn.AvgPool2d': () => [2, {}],
  'nn.MaxPool2d': () => [2, {}],
  'nn.PerStep': () => [[linear()], {}],
  'nn.Sequential': () => [linear(), linear()],
  'nn.crossEntropy': () => [ones([2, 3]), [0, 1]],
  'optim.SGD': () => [linear().parameters(), {}],
  'optim.Adam': () => [linear().parameters(), {}],
  'optim.AdamW': () => [linear().parameters(), {}],
  'optim.CosineAnnealingLR': () => [new optim.SGD(linear().parameters()), { tMax: 3 }],
  'functional.setStepMode': () => [linear(), 'm'],
  'cuda.graph': () => [() => 1, {}],
  fold: () => [linear(), new library.BatchNorm1d(2)],
  foldNet: () => [new nn.Sequential(linear(), new library.BatchNorm1d(2)), {}],
  full: () => [[2], 1, {}],
  loadPyTorch: () => ['none.pt', {}],
  loadPyTorchCheckpoint: () => ['none.pt', {}],
  loadSafetensors: () => ['none.safetensors', {}],
  saveSafetensors: () => ['some.safetensors', linear().stateDict(), {}],
  tensor: () => [[1, 2], [2], {}],
}

const METHOD_ARGUMENTS: Record<string, () => unknown[]> = {
  loadStateDict: () => [{}, {}],
  reshape: () => [[6]],
}

/** Members of an object's classes: methods, getters and setters, those that users see. */
function members(value: object): Map<string, PropertyDescriptor> {
  const found = new Map<string, PropertyDescriptor>()
  for (let at = value; at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    for (const [name, descriptor] of Object.entries(Object.getOwnPropertyDescriptors(at))) {
      if (MEMBERS.has(name) && !found.has(name)) found.set(name, descriptor)
    }
  }
  return found
}

process.chdir(mkdtempSync(join(tmpdir(), 'any-value-')))

describe('given any value', () => {
  for (const [name, value] of exported()) {
    it(`${name} works or says what is wrong`, () => {
      const problems: string[] = []
      const call = (args: unknown[]) => invoke(value, args)
      probeWithOddValues(name, GOOD[name]?.() ?? [], call, problems)
      expect(problems).toEqual([])
    })
  }

  for (const [name, make] of Object.entries(INSTANCES)) {
    for (const isDisposed of 'dispose' in make() ? [false, true] : [false]) {
      it(`every member of a ${isDisposed ? 'disposed ' : ''}${name} works or says what is wrong`, () => {
        const problems: string[] = []
        const instance = () => {
          const made = make()
          if (isDisposed) (made as { dispose(): void }).dispose()
          return made as Record<string, unknown>
        }
        for (const [member, descriptor] of members(make())) {
          if (member === 'constructor') continue
          if (typeof descriptor.value === 'function') {
            const call = (args: unknown[]) => Reflect.apply(descriptor.value, instance(), args)
            probeWithOddValues(`.${member}`, METHOD_ARGUMENTS[member]?.() ?? [], call, problems)
          }
          if (descriptor.get) probe(`.${member}`, () => instance()[member], problems)
          if (descriptor.set) {
            for (const [odd, value] of Object.entries(ODD)) {
              probe(`.${member} = ${odd}`, () => Reflect.set(instance(), member, value()), problems)
            }
          }
        }
        expect(problems).toEqual([])
      })
    }
  }
})

it('every exported class is probed', () => {
  const classes = exported().flatMap(([name, value]) =>
    isClass(value) ? [name.replace(/^(nn|optim)\./, '')] : [],
  )
  expect(
    classes.filter((name) => !(name.replace(/[13]d$/, '2d') in INSTANCES) && !NO_INSTANCES.includes(name)),
  ).toEqual([])
})
