// The witnesses themselves: the float64 reference against finite differences, the half conversions against values
// known by hand, the safetensors reader against bytes written here.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { difference, expectClose } from './support/compare.js'
import { fromHalfBits, roundTo, toHalfBits, unitInLastPlace } from './support/half.js'
import { centralDifferences, dot, normal } from './support/numbers.js'
import { type Family, type Grid, ReferenceNeuNorm, ReferenceNorm, sizeOf } from './support/reference.js'
import { readSafetensors } from './support/safetensors.js'
import { differences, EXACT } from './support/tolerances.js'

const GRID: Grid = { t: 3, n: 2, c: 4, s: 5 }

function norm(family: Family, training: boolean): ReferenceNorm {
  const layer = new ReferenceNorm({
    family,
    channels: GRID.c,
    steps: GRID.t,
    eps: 1e-3,
    momentum: 0.3,
    affine: true,
    track: true,
    initialWeight: 0.7,
  })
  const seeds = [layer.weight, layer.bias, layer.scale, layer.runningMean]
  seeds.forEach((values, seed) => {
    values?.set(normal(seed, values.length, 1, 0.3))
  })
  layer.runningVar.set(normal(9, layer.runningVar.length).map((value) => 0.5 + value * value))
  layer.training = training
  return layer
}

describe('the float64 reference', () => {
  const families: Family[] = ['batch', 'threshold', 'temporal', 'throughTime']
  for (const family of families) {
    for (const training of [true, false]) {
      it(`${family} ${training ? 'in training' : 'in eval'} has the gradients of its own forward`, () => {
        const x = normal(20, sizeOf(GRID), 0.5, 2)
        const dy = normal(21, sizeOf(GRID))
        const layer = norm(family, training)
        const loss = () => {
          layer.step = 0
          return dot(layer.forward(x, GRID, false), dy)
        }
        layer.forward(x, GRID)
        const dx = layer.backward(dy)
        const gate = (expected: Float64Array) => differences(expected, 10)
        const parts: [string, Float64Array | null, Float64Array | null][] = [
          ['dx', x, dx],
          ['dweight', layer.weight, layer.weightGrad],
          ['dbias', layer.bias, layer.biasGrad],
          ['dscale', layer.scale, layer.scaleGrad],
        ]
        for (const [label, values, grad] of parts) {
          if (!values || !grad) continue
          const expected = centralDifferences(values, loss)
          expectClose(label, grad, expected, gate(expected))
        }
      })
    }
  }

  for (const shared of [false, true]) {
    it(`NeuNorm${shared ? ' with a shared weight' : ''} carries gradients back through earlier calls`, () => {
      const layer = new ReferenceNeuNorm(GRID.c, GRID.s, 0.6, shared)
      layer.weight.set(normal(3, layer.weight.length))
      const calls = [GRID, { ...GRID, t: 1 }, { ...GRID, t: 2 }]
      const inputs = calls.map((grid, i) => normal(30 + i, sizeOf(grid)))
      const gradients = calls.map((grid, i) => normal(40 + i, sizeOf(grid)))
      const loss = () => {
        layer.reset()
        let sum = 0
        calls.forEach((grid, i) => {
          sum += dot(layer.forward(inputs[i]!, grid), gradients[i]!)
        })
        return sum
      }
      loss()
      const dx = [2, 1, 0].map((i) => layer.backward(gradients[i]!)).reverse()
      const weightGrad = layer.weightGrad.slice()
      inputs.forEach((x, i) => {
        const expected = centralDifferences(x, loss)
        expectClose(`dx of call ${i}`, dx[i]!, expected, differences(expected, 10))
      })
      const expected = centralDifferences(layer.weight, loss)
      expectClose('dw', weightGrad, expected, differences(expected, 10))
    })
  }

  it('updates running statistics with the unbiased variance and the cumulative mean of momentum null', () => {
    const layer = new ReferenceNorm({
      family: 'batch',
      channels: 1,
      eps: 0,
      momentum: null,
      affine: false,
      track: true,
      initialWeight: 1,
    })
    const grid = { t: 1, n: 4, c: 1, s: 1 }
    layer.forward(Float64Array.of(1, 2, 3, 6), grid)
    expectClose('mean after 1', layer.runningMean, [3], EXACT)
    expectClose('variance after 1', layer.runningVar, [14 / 3], EXACT)
    layer.forward(Float64Array.of(5, 5, 5, 5), grid)
    expectClose('mean after 2', layer.runningMean, [4], EXACT)
    expectClose('variance after 2', layer.runningVar, [7 / 3], EXACT)
    expectClose('batches', layer.batches, [2], EXACT)
  })
})

describe('the half conversions of the tests', () => {
  it('know the landmarks of float16 and bfloat16', () => {
    const landmarks: [number, 'float16' | 'bfloat16', number][] = [
      [1, 'float16', 0x3c00],
      [-2, 'float16', 0xc000],
      [65504, 'float16', 0x7bff],
      [65520, 'float16', 0x7c00],
      [65519.99, 'float16', 0x7bff],
      [2 ** -24, 'float16', 1],
      [2 ** -25, 'float16', 0],
      [1 + 2 ** -11, 'float16', 0x3c00],
      [1 + 2 ** -11 + 2 ** -40, 'float16', 0x3c01],
      [-0, 'float16', 0x8000],
      [1, 'bfloat16', 0x3f80],
      [3.0e38, 'bfloat16', 0x7f62],
      [Number.POSITIVE_INFINITY, 'bfloat16', 0x7f80],
      [1 + 3 * 2 ** -8, 'bfloat16', 0x3f82],
    ]
    for (const [value, type, bits] of landmarks) {
      expect(toHalfBits(value, type).toString(16), `${value} as ${type}`).toBe(bits.toString(16))
    }
  })

  it('give every bit pattern back, and round to the nearest neighbour', () => {
    for (const type of ['float16', 'bfloat16'] as const) {
      const patterns = Array.from({ length: 0x10000 }, (_, bits) => bits)
      const changed = patterns.filter((bits) => {
        const value = fromHalfBits(bits, type)
        return !Number.isNaN(value) && toHalfBits(value, type) !== bits
      })
      expect(changed).toEqual([])
      const far = normal(5, 2000, 0, 100).filter(
        (value) => Math.abs(roundTo(value, type) - value) > unitInLastPlace(value, type) / 2,
      )
      expect([...far]).toEqual([])
    }
  })
})

describe('the comparison of the tests', () => {
  it('reports the worst index with what was expected, what came and the bound', () => {
    const message = difference('y', [1, 2.5, 3, Number.NaN], [1, 2, 3.1, 4], EXACT)
    expect(message).toMatch(
      /^y: 3 of 4 values are off; the worst at index 3: expected 4, got NaN, error Infinity/,
    )
  })

  it('accepts equal infinities and NaNs, and nothing beside the bound', () => {
    const values = [Number.NaN, Number.POSITIVE_INFINITY, 1]
    expect(difference('same', values, values, EXACT)).toBeNull()
    expect(difference('edge', [1.5], [1], { absolute: 0.5, why: '' })).toBeNull()
    expect(difference('past', [1.5], [1], { absolute: 0.4999, why: 'half' })).toMatch(/index 0.*half/)
    expect(difference('short', [1], [1, 2], EXACT)).toMatch(/1 values where 2/)
  })
})

describe('the safetensors reader of the tests', () => {
  it('reads values, shapes and metadata from bytes laid out by hand', () => {
    const header = JSON.stringify({
      __metadata__: { note: 'by hand' },
      half: { dtype: 'F16', shape: [2], data_offsets: [0, 4] },
      count: { dtype: 'I64', shape: [], data_offsets: [4, 12] },
    })
    const bytes = Buffer.alloc(8 + header.length + 12)
    bytes.writeBigUInt64LE(BigInt(header.length), 0)
    bytes.write(header, 8)
    bytes.writeUInt16LE(0x3c00, 8 + header.length)
    bytes.writeUInt16LE(0xc000, 8 + header.length + 2)
    bytes.writeBigInt64LE(-7n, 8 + header.length + 4)
    const folder = mkdtempSync(join(tmpdir(), 'spikenorm-'))
    try {
      const path = join(folder, 'hand.safetensors')
      writeFileSync(path, bytes)
      const { metadata, tensors } = readSafetensors(path)
      expect(metadata).toEqual({ note: 'by hand' })
      expect([...tensors.get('half')!.values]).toEqual([1, -2])
      expect([...tensors.get('count')!.values]).toEqual([-7])
      expect(tensors.get('count')!.shape).toEqual([])
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})
