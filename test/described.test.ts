// What modules, optimisers and tensors say of themselves, in text, in Node's console and in JSON.
import { inspect } from 'node:util'
import { expect, it } from 'vitest'
import {
  BatchNorm2d,
  full,
  Module,
  NeuNorm,
  nn,
  ones,
  optim,
  Parameter,
  type Tensor,
  tensor,
  zeros,
} from '../src/index.js'
import { expectCode } from './support/compare.js'

const net = () =>
  new nn.Sequential(
    new nn.Conv2d(1, 4, 3, { padding: 1, bias: false }),
    new nn.Sequential(new BatchNorm2d(4), new nn.LIFNode({ vReset: null })),
    new nn.Residual(new nn.Flatten()),
  )

it('a net has a line for each module, as in PyTorch', () => {
  const text = String(net())
  expect(text.split('\n').map((line) => line.replace(/\(\w+=.*\)/, '(…)'))).toEqual([
    'Sequential(',
    '  (0): Conv2d(…)',
    '  (1): Sequential(',
    '    (0): BatchNorm2d(…)',
    '    (1): LIFNode(…)',
    '  )',
    '  (2): Residual(',
    '    (module): Flatten(…)',
    '  )',
    ')',
  ])
  expect(text).toContain('inChannels=1, outChannels=4, kernelSize=[3, 3], stride=[1, 1], padding=[1, 1]')
  expect(text).toContain('eps=0.00001')
  expect(text).toContain("momentum=0.1, stepMode='s'")
  expect(text).toContain('vReset=null')
  expect(inspect(net())).toBe(text)
  expect(JSON.parse(JSON.stringify(net()))).toBe(text)
})

it('a layer says what it was made with', () => {
  expect(String(new nn.Linear(3, 2))).toContain('Linear(inFeatures=3, outFeatures=2')
  expect(String(new NeuNorm(3, 2, 2))).toContain('k=0.9')
})

it('an optimiser and a schedule say theirs', () => {
  const adam = new optim.Adam(new nn.Linear(1, 1).parameters(), { lr: 0.5 })
  expect(String(adam)).toBe('Adam(betas=[0.9, 0.999], eps=1e-8, weightDecay=0, lr=0.5)')
  expect(JSON.stringify({ adam })).toContain('lr=0.5')
  expect(String(new optim.CosineAnnealingLR(adam, { tMax: 3 }))).toContain(
    'tMax=3, etaMin=0, baseLr=0.5, lastEpoch=0',
  )
})

it('a tensor says its shape, dtype and first values, and JSON is no empty object', () => {
  expect(String(tensor([0.1, 2]))).toBe(
    "Tensor { shape: [2], dtype: 'float32', device: 'cpu', values: [0.1, 2] }",
  )
  expect(String(zeros([30]))).toContain('… 14 more')
  expect(String(zeros([2000]))).not.toContain('values')
  expect(JSON.stringify(full([2], Number.NaN))).toBe('{"shape":[2],"dtype":"float32","device":"cpu"}')
  const gone = ones([1])
  gone.dispose()
  expect(String(gone)).toBe('Tensor (disposed)')
  expect(JSON.stringify(gone)).toBe('{"isDisposed":true}')
})

class Scale extends Module {
  readonly w: Parameter
  constructor(start: Tensor) {
    super()
    this.w = this.registerParameter('w', new Parameter(start))
  }
  protected override computeForward(x: Tensor) {
    return x
  }
  protected override computeBackward(dy: Tensor) {
    return dy
  }
}

it('a module of a user makes its parameters of tensors', () => {
  const start = tensor([1, 2])
  const scale = new Scale(start)
  expect(scale.parameters()[0]).toBeInstanceOf(Parameter)
  scale.w.grad = ones([2])
  new optim.SGD(scale.parameters(), { lr: 1 }).step()
  expect([...scale.w.toTypedArray()]).toEqual([0, 1])
  // It is a copy: what it was made of stays as it was.
  expect([...start.toTypedArray()]).toEqual([1, 2])
  expectCode('ERR_DTYPE', () => new Parameter(tensor([1], { dtype: 'int64' })), 'float32 or float64')
  expectCode('ERR_ARGUMENT', () => new Parameter([1] as never), 'Parameter: data: expected a Tensor')
})

it('what is no module says what to write', () => {
  expectCode('ERR_ARGUMENT', () => new nn.Sequential([new nn.Flatten()] as never), 'without the array')
  expectCode('ERR_ARGUMENT', () => new nn.Sequential(nn.Flatten as never), 'write new Flatten(…)')
  expectCode('ERR_ARGUMENT', () => new nn.Sequential((() => 1) as never), 'extends Module')
  expectCode(
    'ERR_ARGUMENT',
    () => new nn.Linear(1, 1).loadStateDict(new nn.Linear(1, 1) as never),
    'write net.stateDict()',
  )
  expectCode('ERR_ARGUMENT', () => new nn.Linear(1, 1).loadStateDict({}, false as never), '{ strict: false }')
  expectCode('ERR_ARGUMENT', () => new nn.Linear(1, 1).train('no' as never), "got 'no'")
  expectCode(
    'ERR_ARGUMENT',
    () => Reflect.apply(ones([1]).to, ones([1]), ['cpu', 'float64']),
    'one call for each',
  )
})
