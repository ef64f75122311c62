// What loading files takes: dtypes that are widened, tensors that are left out, bits that change what values mean, metadata
// and paths. Each for .safetensors files and for files of torch.save.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import {
  BatchNorm2d,
  loadPyTorch,
  loadPyTorchCheckpoint,
  loadSafetensors,
  loadSafetensorsMetadata,
  saveSafetensors,
  TemporalEffectiveBatchNorm2d,
  type Tensor,
  tensor,
} from '../src/index.js'
import { converted, spikenorm } from './cli/support.js'
import { bytesOf } from './support/bytes.js'
import { expectCode } from './support/compare.js'
import { dictOp, tensorOp, torchFile } from './support/pickle.js'
import { headerOf, safetensorsBytes } from './support/safetensors-bytes.js'

const folder = mkdtempSync(join(tmpdir(), 'spikenorm-'))
afterAll(() => rmSync(folder, { recursive: true }))
let files = 0
function write(extension: string, bytes: Uint8Array): string {
  const path = join(folder, `${++files}.${extension}`)
  writeFileSync(path, bytes)
  return path
}

type Values = Int8Array | Int16Array | Int32Array | Uint16Array | Uint32Array | Uint8Array

/** Every narrow dtype: its names in both formats, extreme values, and those that are expected. */
const NARROW: [string, string, Values, string, (number | bigint)[]][] = [
  ['BOOL', 'BoolStorage', Uint8Array.of(1, 0, 1), 'uint8', [1, 0, 1]],
  ['I8', 'CharStorage', Int8Array.of(-128, 127, -1), 'int64', [-128n, 127n, -1n]],
  ['I16', 'ShortStorage', Int16Array.of(-32768, 32767, -1), 'int64', [-32768n, 32767n, -1n]],
  [
    'I32',
    'IntStorage',
    Int32Array.of(-(2 ** 31), 2 ** 31 - 1, -1),
    'int64',
    [-(2n ** 31n), 2n ** 31n - 1n, -1n],
  ],
  ['U16', 'UInt16Storage', Uint16Array.of(0, 65535, 1), 'int64', [0n, 65535n, 1n]],
  ['U32', 'UInt32Storage', Uint32Array.of(0, 2 ** 32 - 1, 1), 'int64', [0n, 2n ** 32n - 1n, 1n]],
]

function expectValues(got: Tensor | undefined, dtype: string, values: (number | bigint)[]) {
  expect(got!.dtype).toBe(dtype)
  expect([...got!.toTypedArray()]).toEqual(values)
}

describe('narrow dtypes are widened, every value kept', () => {
  for (const [stored, , values, dtype, expected] of NARROW) {
    it(`${stored} to ${dtype} from .safetensors, beside others`, () => {
      const floats = Float32Array.of(1.5)
      const header = headerOf({ w: ['F32', [1], 4], n: [stored, [3, 1], values.byteLength] })
      const path = write(
        'safetensors',
        safetensorsBytes(header, Buffer.concat([bytesOf(floats), bytesOf(values)])),
      )
      const { w, n } = loadSafetensors(path)
      expectValues(n, dtype, expected)
      expect([n!.shape, w!.item()]).toEqual([[3, 1], 1.5])
    })
  }

  for (const [stored, storage, values, dtype, expected] of NARROW.slice(0, 4)) {
    it(`${stored} to ${dtype} from files of torch.save, also strided`, () => {
      const pickle = dictOp({
        n: tensorOp({ count: 3, size: [3], stride: [1], storage }),
        last: tensorOp({ count: 3, offset: 2, size: [2], stride: [0], storage }),
      })
      const { n, last } = loadPyTorch(write('pt', torchFile(pickle, { 0: bytesOf(values) })))
      expectValues(n, dtype, expected)
      expectValues(last, dtype, [expected[2]!, expected[2]!])
    })
  }

  it('more of them than are widened at once', () => {
    const values = Int16Array.from({ length: 100_001 }, (_, i) => i - 50_000)
    const path = write(
      'safetensors',
      safetensorsBytes(headerOf({ n: ['I16', [100_001], 200_002] }), bytesOf(values)),
    )
    expect(loadSafetensors(path).n!.toTypedArray()).toEqual(BigInt64Array.from(values, BigInt))
  })

  it('bools that are neither 0 nor 1 are 1, as in C', () => {
    const path = write(
      'safetensors',
      safetensorsBytes(headerOf({ n: ['BOOL', [3], 3] }), Uint8Array.of(2, 0, 255)),
    )
    expectValues(loadSafetensors(path).n, 'uint8', [1, 0, 1])
  })
})

describe('one tensor of a dtype that no dtype here holds costs that tensor with skipUnsupported, and not the file', () => {
  const BITS: Record<string, number> = {
    ...{ U64: 64, C64: 64, F8_E4M3: 8, F8_E5M2: 8, F8_E8M0: 8, F8_E4M3FNUZ: 8, F8_E5M2FNUZ: 8, F4: 4 },
    ...{ F6_E2M3: 6, F6_E3M2: 6 },
  }
  for (const [dtype, bits] of Object.entries(BITS)) {
    it(dtype, () => {
      const header = headerOf({ before: ['F32', [1], 4], odd: [dtype, [4], bits / 2], after: ['I64', [], 8] })
      const data = Buffer.concat([
        bytesOf(Float32Array.of(2)),
        Buffer.alloc(bits / 2, 9),
        bytesOf(BigInt64Array.of(-7n)),
      ])
      const path = write('safetensors', safetensorsBytes(header, data))
      expectCode('ERR_DTYPE', () => loadSafetensors(path), path, "'odd'", dtype, 'skipUnsupported')
      const { before, after, ...rest } = loadSafetensors(path, { skipUnsupported: true })
      expect([before!.item(), after!.item(), rest]).toEqual([2, -7, {}])
    })
  }

  it('in files of torch.save too', () => {
    const pickle = dictOp({
      w: tensorOp({ count: 1, size: [1], stride: [1] }),
      c: tensorOp({ key: '1', count: 1, size: [1], stride: [1], storage: 'ComplexFloatStorage' }),
    })
    const path = write('pt', torchFile(pickle, { 0: bytesOf(Float32Array.of(2)), 1: Buffer.alloc(8) }))
    expectCode('ERR_DTYPE', () => loadPyTorch(path), "'c'", 'complex64', 'skipUnsupported')
    expect(Object.keys(loadPyTorch(path, { skipUnsupported: true }))).toEqual(['w'])
  })

  it('and by the command line, which says what to give', () => {
    const header = headerOf({ w: ['F32', [1], 4], c: ['C64', [1], 8] })
    const path = write('safetensors', safetensorsBytes(header, Buffer.alloc(12)))
    const { status, stderr } = spikenorm(['convert', path])
    expect([status, stderr]).toEqual([1, expect.stringContaining('--skip-unsupported')])
    const { tensors } = converted(path, '--skip-unsupported')
    expect(tensors.map(({ key }: { key: string }) => key)).toEqual(['w'])
  })
})

describe("PyTorch's bits of a tensor", () => {
  const negated: [string, Uint8Array, (number | bigint)[]][] = [
    ['FloatStorage', bytesOf(Float32Array.of(2, -0.5, 0)), [-2, 0.5, -0]],
    ['DoubleStorage', bytesOf(Float64Array.of(2, -0.5, 0)), [-2, 0.5, -0]],
    ['HalfStorage', bytesOf(Uint16Array.of(0x3c00, 0xbc00, 0)), [0xbc00, 0x3c00, 0x8000]],
    ['BFloat16Storage', bytesOf(Uint16Array.of(0x3f80, 0xbf80, 0)), [0xbf80, 0x3f80, 0x8000]],
    ['LongStorage', bytesOf(BigInt64Array.of(2n, -(2n ** 63n), 0n)), [-2n, -(2n ** 63n), 0n]],
    ['IntStorage', bytesOf(Int32Array.of(2, -5, 0)), [-2n, 5n, 0n]],
    ['CharStorage', bytesOf(Int8Array.of(2, -5, -128)), [-2n, 5n, -128n]],
    ['ByteStorage', bytesOf(Uint8Array.of(2, 255, 0)), [254, 1, 0]],
  ]
  for (const [storage, bytes, expected] of negated) {
    it(`neg negates ${storage}, strided or not, and nothing beside it`, () => {
      const common = { count: 3, storage }
      const pickle = dictOp({
        whole: tensorOp({ ...common, size: [3], stride: [1], bits: ['neg'] }),
        twice: tensorOp({ ...common, size: [2], stride: [0], bits: ['neg'] }),
        plain: tensorOp({ ...common, size: [1], stride: [1] }),
      })
      const { whole, twice, plain } = loadPyTorch(write('pt', torchFile(pickle, { 0: bytes })))
      expect([...whole!.toTypedArray()]).toEqual(expected)
      expect([...twice!.toTypedArray()]).toEqual([expected[0], expected[0]])
      expect(-plain!.item()).toBe(-loadPyTorch(write('pt', torchFile(pickle, { 0: bytes }))).plain!.item())
      expect(plain!.toTypedArray()[0]).not.toEqual(expected[0])
    })
  }

  for (const bits of [['conj'], ['neg', 'conj'], ['bit of tomorrow']]) {
    it(`${bits.join(' and ')}: no value is made up`, () => {
      const pickle = dictOp({
        w: tensorOp({ count: 1, size: [1], stride: [1], bits }),
        v: tensorOp({ count: 1, size: [1], stride: [1] }),
      })
      const path = write('pt', torchFile(pickle, { 0: bytesOf(Float32Array.of(2)) }))
      expectCode('ERR_DTYPE', () => loadPyTorch(path), "'w'", bits.at(-1) as string)
      expectCode('ERR_DTYPE', () => loadPyTorchCheckpoint(path), "'w'")
      expect(Object.keys(loadPyTorch(path, { skipUnsupported: true }))).toEqual(['v'])
    })
  }
})

describe('shapes that JavaScript cannot count', () => {
  it('are refused, also beside an extent of 0; what it can is kept', () => {
    const max = '18446744073709551615'
    for (const shape of [
      `0,${max}`,
      `${max},0`,
      '0,9007199254740993',
      '0,4503599627370496,4503599627370496',
    ]) {
      const header = `{"a":{"dtype":"F32","shape":[${shape}],"data_offsets":[0,0]}}`
      const path = write('safetensors', safetensorsBytes(header))
      expectCode('ERR_FILE', () => loadSafetensors(path), path, "'a'")
    }
    const path = write('safetensors', safetensorsBytes(headerOf({ a: ['F32', [0, 2 ** 53], 0] })))
    expect(loadSafetensors(path).a!.shape).toEqual([0, 2 ** 53])
  })
})

describe('metadata', () => {
  const path = join(folder, 'metadata.safetensors')
  const dict = { a: tensor([1], [1]) }

  it('is what was saved, with the format beside it', () => {
    const metadata = { epoch: '3', 'größe "✓"': '\n\\', __proto__x: '', acc: '0.9' }
    saveSafetensors(path, dict, { metadata })
    expect(loadSafetensorsMetadata(path)).toEqual({ ...metadata, format: 'pt' })
    expect(loadSafetensors(path).a!.item()).toBe(1)
    saveSafetensors(path, dict, { metadata: { format: 'np' } })
    expect(loadSafetensorsMetadata(path)).toEqual({ format: 'np' })
    saveSafetensors(path, dict)
    expect(loadSafetensorsMetadata(path)).toEqual({ format: 'pt' })
  })

  it('is {} where a file has none', () => {
    const none = write('safetensors', safetensorsBytes(headerOf({ a: ['U8', [1], 1] }), Uint8Array.of(7)))
    expect(loadSafetensorsMetadata(none)).toEqual({})
    expectCode('ERR_FILE', () => loadSafetensorsMetadata(join(folder, 'nothing')), 'nothing')
  })

  it('and tensors make the same bytes in every run', () => {
    const metadata = Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`key${i}`, `${i}`]))
    saveSafetensors(path, dict, { metadata })
    const before = readFileSync(path)
    for (let i = 0; i < 3; i++) {
      saveSafetensors(path, dict, { metadata })
      expect(readFileSync(path)).toEqual(before)
    }
    // Aligned, as readers that map files need it.
    expect(before.readBigUInt64LE() % 8n).toBe(0n)
  })

  it('of a file without tensors', () => {
    saveSafetensors(path, {}, { metadata: { note: 'nothing' } })
    expect([loadSafetensors(path), loadSafetensorsMetadata(path).note]).toEqual([{}, 'nothing'])
  })

  it('is text', () => {
    for (const metadata of [{ epoch: 3 }, { a: null }, ['a'], 'a', { a: '\ud800' }, { '\udc00': 'a' }]) {
      expectCode(
        'ERR_ARGUMENT',
        () => saveSafetensors(path, dict, { metadata: metadata as never }),
        'metadata',
      )
    }
  })
})

describe('paths', () => {
  const path = join(folder, 'a b%20#ü.safetensors')
  const pt = write(
    'pt',
    torchFile(dictOp({ w: tensorOp({ count: 1, size: [1], stride: [1] }) }), { 0: Buffer.alloc(4) }),
  )

  it('may be file: URLs', () => {
    saveSafetensors(pathToFileURL(path), { a: tensor([5], [1]) }, { metadata: { k: 'v' } })
    for (const where of [path, pathToFileURL(path)]) {
      expect(loadSafetensors(where).a!.item()).toBe(5)
      expect(loadSafetensorsMetadata(where).k).toBe('v')
    }
    expect(loadPyTorch(pathToFileURL(pt)).w!.item()).toBe(0)
    expect(Object.keys(loadPyTorchCheckpoint(pathToFileURL(pt)) as object)).toEqual(['w'])
  })

  it('may be nothing else', () => {
    const wrong = [
      ...[
        new URL('https://example.com/a.pt'),
        new URL('data:,a'),
        7,
        null,
        undefined,
        {},
        ['a'],
        Buffer.from('a'),
      ],
      ...['a\0b', 'a\ud800', new URL('file:///a%00b'), new URL('file:///a%2Fb')],
    ]
    for (const one of wrong as never[]) {
      for (const load of [loadSafetensors, loadSafetensorsMetadata, loadPyTorch, loadPyTorchCheckpoint]) {
        expectCode('ERR_ARGUMENT', () => load(one), load.name, 'path')
      }
      expectCode('ERR_ARGUMENT', () => saveSafetensors(one, {}), 'saveSafetensors: path')
    }
  })

  it('come before options that are checked', () => {
    expectCode(
      'ERR_ARGUMENT',
      () => loadSafetensors(path, { skipunsupported: true } as never),
      'did you mean skipUnsupported',
    )
    expectCode('ERR_ARGUMENT', () => loadPyTorch(pt, { skip_unsupported: true } as never), 'skipUnsupported')
    expectCode('ERR_ARGUMENT', () => loadPyTorchCheckpoint(pt, { key: 'a' } as never), 'key')
    expectCode('ERR_ARGUMENT', () => saveSafetensors(path, {}, { meta: {} } as never), 'metadata')
    expectCode('ERR_ARGUMENT', () => loadSafetensors(path, { skipUnsupported: 1 } as never), 'true or false')
  })
})

describe('files of PyTorch and SpikingJelly', () => {
  const file = (name: string) => fileURLToPath(new URL(`./fixtures/from-pytorch/${name}`, import.meta.url))

  it('without counters, or with one of shape [1], load strictly and pass the check', () => {
    for (const name of ['no-counter.safetensors', 'counter-of-shape-1.safetensors', 'no-counter.pt']) {
      const dict = name.endsWith('.pt') ? loadPyTorch(file(name)) : loadSafetensors(file(name))
      const norm = new BatchNorm2d(3)
      expect(norm.loadStateDict(dict), name).toEqual({ missingKeys: [], unexpectedKeys: [] })
      expect(norm.stateDict().running_mean!.toTypedArray()).toEqual(dict.running_mean!.toTypedArray())
      expect(converted(file(name), '--check', 'BatchNorm2d'), name).toMatchObject({
        status: 0,
        checks: [{ fits: true }],
      })
    }
    const tebn = new TemporalEffectiveBatchNorm2d(2, 3)
    tebn.loadStateDict(loadSafetensors(file('no-counter-tebn.safetensors')))
    expect(tebn.stateDict().scale!.shape).toEqual([2])
  })

  it('with the negative bit, other dtypes and metadata load with their values', () => {
    const { imag, plain } = loadPyTorch(file('negative-bit.pt'))
    expect([[...imag!.toTypedArray()], [...plain!.toTypedArray()]]).toEqual([
      [-2, -4],
      [1, 2],
    ])
    expectValues(loadSafetensors(file('one-bool.safetensors')).mask, 'uint8', [1, 0])
    expectValues(loadSafetensors(file('one-int32.safetensors')).i, 'int64', [1n, 2n])
    expect(loadSafetensorsMetadata(file('with-metadata.safetensors'))).toEqual({ acc: '0.9', epoch: '3' })
  })
})
