// A model that PyTorch trained, saved by PyTorch, gives PyTorch's outputs and gradients here
// (scripts/make-pytorch-fixture.py).

import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { BatchNorm2d, loadSafetensors, nn, type Tensor } from '../src/index.js'
import { expectClose } from './support/compare.js'
import { peer } from './support/tolerances.js'

const path = fileURLToPath(new URL('./fixtures/pytorch-net.safetensors', import.meta.url))

/** The tensors of the file whose names start with `prefix`, without it. */
function below(file: Record<string, Tensor>, prefix: string): Record<string, Tensor> {
  const entries = Object.entries(file).filter(([name]) => name.startsWith(prefix))
  return Object.fromEntries(entries.map(([name, value]) => [name.slice(prefix.length), value]))
}

function expectSame(label: string, got: Tensor, expected: Tensor | undefined) {
  if (!expected) throw new Error(`the fixture has no ${label}`)
  expect(got.shape, `${label}: shape`).toEqual([...expected.shape])
  const values = expected.toFloat64Array()
  expectClose(label, got.toFloat64Array(), values, peer(values))
}

describe('a net trained and saved by PyTorch', () => {
  const file = loadSafetensors(path)
  const net = new nn.Sequential(
    new nn.Conv2d(2, 4, 3, { padding: 1, bias: false }),
    new BatchNorm2d(4),
    new nn.AvgPool2d(2),
    new nn.Flatten(),
    new nn.Linear(36, 5),
  )

  it('loads strictly, key for key', () => {
    expect(net.loadStateDict(below(file, 'net.'))).toEqual({ missingKeys: [], unexpectedKeys: [] })
  })

  it('gives the same outputs in evaluation', () => {
    net.eval()
    expectSame('y.eval', net.forward(file.x as Tensor), file['y.eval'])
  })

  it('gives the same outputs and gradients in training', () => {
    net.train()
    expectSame('y.train', net.forward(file.x as Tensor), file['y.train'])
    expectSame('dx', net.backward(file.dy as Tensor), file.dx)
    for (const [name, parameter] of net.namedParameters()) {
      if (!parameter.grad) throw new Error(`${name} has no gradient`)
      expectSame(`grad.${name}`, parameter.grad, file[`grad.${name}`])
    }
  })

  it('loads bfloat16 weights into float32 parameters', () => {
    const norm = new BatchNorm2d(4)
    norm.loadStateDict(below(file, 'half.'), { strict: false })
    const half = below(file, 'half.').weight as Tensor
    expect(half.dtype).toBe('bfloat16')
    const [[, weight]] = norm.namedParameters() as [[string, Tensor], ...unknown[]]
    expect(weight.dtype).toBe('float32')
    expect([...weight.toFloat64Array()]).toEqual([...half.toFloat64Array()])
  })
})
