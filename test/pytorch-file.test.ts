// Files of torch.save: what they hold, bit by bit (scripts/make-pytorch-file-fixtures.py), and that broken and hostile ones
// are refused, having run nothing.

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import {
  BatchNorm2d,
  loadPyTorch,
  loadPyTorchCheckpoint,
  loadSafetensors,
  nn,
  type PyTorchValue,
  Tensor,
} from '../src/index.js'
import { expectCode, expectSameBits } from './support/compare.js'
import { type Entry, zip } from './support/zip.js'

const fixtures = fileURLToPath(new URL('./fixtures/pytorch-files/', import.meta.url))
const file = (name: string) => join(fixtures, `${name}.pt`)
const folder = mkdtempSync(join(tmpdir(), 'spikenorm-'))
afterAll(() => rmSync(folder, { recursive: true }))

/** The tensors of a file are those of the .safetensors file that PyTorch wrote beside it. */
function expectAsWritten(dict: Record<string, Tensor>, name: string) {
  const want = loadSafetensors(join(fixtures, `${name}.safetensors`))
  expect(Object.keys(dict).sort()).toEqual(Object.keys(want).sort())
  for (const [key, value] of Object.entries(want)) expectSameBits(key, dict[key] as Tensor, value)
}

type Dict = { [key: string]: PyTorchValue }

describe('loadPyTorch', () => {
  it('reads every dtype there is here, scalars and empty tensors, bit by bit', () => {
    expectAsWritten(loadPyTorch(file('dtypes')), 'dtypes')
  })

  it('reads views: offsets, strides, permutations, repeats and parameters over one storage', () => {
    const dict = loadPyTorch(file('views'))
    expectAsWritten(dict, 'views')
    // The fixture is what it says: the views do share a storage, and are not contiguous.
    expect([...dict.steps!.toFloat64Array()]).toEqual([1, 4, 13, 16])
    expect([...dict.expanded!.toFloat64Array()]).toEqual(Array(6).fill(15))
  })

  for (const name of ['small', 'big-endian', 'deflated', 'zip64']) {
    it(`reads ${name}.pt`, () => {
      expectAsWritten(loadPyTorch(file(name)), 'small')
    })
  }

  for (const name of ['checkpoint', 'protocol-4', 'protocol-5']) {
    it(`takes a state dict out of ${name}.pt by its key, and it fits a net`, () => {
      const net = new nn.Sequential(new nn.Conv2d(2, 3, 2, { bias: false }), new BatchNorm2d(3))
      for (const key of ['net', ['net'], ['ema', 'model']]) {
        const dict = loadPyTorch(file(name), { key })
        expectAsWritten(dict, 'checkpoint')
        expect(Object.keys(dict)).toEqual([
          '0.weight',
          '1.weight',
          '1.bias',
          '1.running_mean',
          '1.running_var',
          '1.num_batches_tracked',
        ])
        net.loadStateDict(dict)
      }
      expect(net.stateDict()['1.num_batches_tracked']!.item()).toBe(1)
    })
  }

  it('says which keys there are where the file or the key is no state dict', () => {
    const choices = "{ key: 'net' } or { key: ['ema', 'model'] }"
    const path = file('checkpoint')
    expectCode('ERR_FILE', () => loadPyTorch(path), path, 'no state dict', "'net' in it is a dict", choices)
    expectCode('ERR_FILE', () => loadPyTorch(path, { key: 'epoch' }), "'epoch'", 'a number', choices)
    expectCode('ERR_FILE', () => loadPyTorch(path, { key: 'model' }), "no 'model'", choices)
    expectCode('ERR_FILE', () => loadPyTorch(path, { key: ['ema', 'net'] }), "no 'net' in 'ema'")
    expectCode('ERR_FILE', () => loadPyTorch(path, { key: 'constructor' }), "no 'constructor'")
  })

  it('widens what a dtype here holds exactly', () => {
    const { weight, steps, mask } = loadPyTorch(file('int32'))
    expect([weight!.dtype, steps!.dtype, mask!.dtype]).toEqual(['float32', 'int64', 'uint8'])
    expect([steps!.toTypedArray(), mask!.toTypedArray()]).toEqual([
      BigInt64Array.of(1n, 1n),
      Uint8Array.of(1),
    ])
  })
})

describe('loadPyTorchCheckpoint', () => {
  for (const name of ['checkpoint', 'protocol-4', 'protocol-5']) {
    it(`gives all that is in ${name}.pt`, () => {
      const { net, ema, optimizer, lr_scheduler, ...rest } = loadPyTorchCheckpoint(file(name)) as Dict
      expectAsWritten(net as Record<string, Tensor>, 'checkpoint')
      expectAsWritten((ema as Dict).model as Record<string, Tensor>, 'checkpoint')
      const { __proto__: own, ...plain } = rest as Dict & { __proto__: unknown }
      expect(own).toEqual({ polluted: true })
      expect(plain).toEqual({
        epoch: 3,
        max_test_acc: 0.75,
        large: 2n ** 70n,
        note: 'größe ✓',
        flags: [true, null, [1, -2, 300, 70000]],
        shape: [2, 3],
        dtype: 'torch.float16',
        device: 'cuda:1',
        bytes: Uint8Array.of(0, 255),
      })
      expect(({} as { polluted?: boolean }).polluted).toBeUndefined()
      const { state, param_groups } = optimizer as { state: Dict; param_groups: Dict[] }
      expect(Object.keys(state)).toEqual(['0', '1', '2'])
      const first = state[0] as { exp_avg: Tensor; step: Tensor }
      expect([first.exp_avg.shape, first.step.item()]).toEqual([[3, 2, 2, 2], 1])
      expect(param_groups[0]).toMatchObject({ lr: 0.25, betas: [0.9, 0.999], params: [0, 1, 2] })
      expect((lr_scheduler as Dict).milestones).toEqual({ 2: 1, 5: 1 })
    })
  }

  it('gives a state dict that is the whole file', () => {
    expectAsWritten(loadPyTorchCheckpoint(file('small')) as Record<string, Tensor>, 'small')
  })
})

describe('what is not tensors, numbers, text, or dicts and lists of them', () => {
  const refused: [string, string][] = [
    ['malicious', 'posix.system'],
    ['object', '__main__.Args'],
    ['whole-net', 'torch.nn.modules.container.Sequential'],
  ]
  for (const [name, global] of refused) {
    it(`throws ERR_FILE for ${name}.pt, naming ${global}`, () => {
      for (const load of [loadPyTorch, loadPyTorchCheckpoint]) {
        expectCode('ERR_FILE', () => load(file(name)), file(name), global, 'was not run')
      }
    })
  }

  it('is left out where that is asked for, and never run', () => {
    const lenient = { skipUnsupported: true }
    expect(Object.keys(loadPyTorch(file('malicious'), lenient))).toEqual(['weight'])
    const { net, ...rest } = loadPyTorchCheckpoint(file('object'), lenient) as Dict
    expect([Object.keys(net as Dict), rest]).toEqual([['weight'], { after: 1 }])
    expect(Object.keys(loadPyTorch(file('object'), { key: 'net', ...lenient }))).toEqual(['weight'])
    expect(loadPyTorchCheckpoint(file('whole-net'), lenient)).toBeNull()
    expect(existsSync('spikenorm-was-here')).toBe(false)
  })
})

/** The contents of data.pkl by opcodes: text for ASCII, numbers for bytes. */
const pickle = (...parts: (string | number[])[]) =>
  Buffer.concat(
    parts.map((part) => (typeof part === 'string' ? Buffer.from(part, 'latin1') : Buffer.from(part))),
  )

let files = 0
function archive(data: Uint8Array, ...others: Entry[]): string {
  const path = join(folder, `${++files}.pt`)
  writeFileSync(path, zip([{ name: 'a/data.pkl', data }, ...others]))
  return path
}
function write(bytes: Uint8Array): string {
  const path = join(folder, `${++files}.pt`)
  writeFileSync(path, bytes)
  return path
}

const STORAGE = [
  '(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ', // storage '0' of 4 floats
] as const
/** `{'w': tensor}` of a storage of 4 floats. */
const view = (offset: number, size: number[], stride: number[]) =>
  pickle(
    '\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n(',
    ...STORAGE,
    [0x4b, offset],
    '(',
    size.flatMap((extent) => [0x4b, extent]),
    't(',
    stride.flatMap((step) => [0x4b, step]),
    't\x89}tRs.',
  )
const floats: Entry = { name: 'a/data/0', data: new Uint8Array(Float32Array.of(1, 2, 3, 4).buffer) }

describe('ERR_FILE', () => {
  it('is not what a file made by hand throws that is in order', () => {
    expect([...loadPyTorch(archive(view(1, [3], [1]), floats)).w!.toFloat64Array()]).toEqual([2, 3, 4])
    expect([...loadPyTorch(archive(view(0, [2, 2], [1, 2]), floats)).w!.toFloat64Array()]).toEqual([
      1, 3, 2, 4,
    ])
  })

  const small = readFileSync(file('small'))
  const broken: [string, () => string, ...(string | RegExp)[]][] = [
    ['a missing file', () => join(folder, 'nothing.pt'), 'ENOENT'],
    ['a folder', () => mkdtempSync(join(folder, 'sub')), /folder|EISDIR/],
    ['an empty file', () => write(new Uint8Array())],
    ['text', () => write(Buffer.from('not a model at all')), 'zip archive'],
    ['a .safetensors file', () => join(fixtures, 'small.safetensors'), 'loadSafetensors'],
    ['a file of before PyTorch 1.6', () => file('legacy'), 'PyTorch 1.6'],
    [
      'an archive without a pickle',
      () => write(zip([{ name: 'a/data', data: new Uint8Array() }])),
      'data.pkl',
    ],
    ['an archive of nothing', () => write(zip([])), 'data.pkl'],
    ['a pickle cut short', () => archive(pickle('\x80\x02}')), 'cut short'],
    ['an empty pickle', () => archive(pickle()), 'cut short'],
    ['an empty stack', () => archive(pickle('\x80\x02.')), 'stack'],
    ['a memo that is empty', () => archive(pickle('\x80\x02h\x05.')), 'memo'],
    ['a mark that is missing', () => archive(pickle('\x80\x02e.')), 'mark'],
    ['an opcode of text pickles', () => archive(pickle("S'a'\n.")), '0x53'],
    ['a protocol to come', () => archive(pickle('\x80\x09N.')), 'protocol 9'],
    ['items of what is no dict', () => archive(pickle('\x80\x02]NNs.')), 'no dict'],
    ['items added to what is no list', () => archive(pickle('\x80\x02}Na.')), 'no list'],
    ['a call of what is no function', () => archive(pickle('\x80\x02N)R.')), 'no function'],
    ['a call of a type', () => archive(pickle('\x80\x02ctorch\nFloatStorage\n)R.')), 'torch.FloatStorage'],
    ['attributes of a number', () => archive(pickle('\x80\x02K\x01}b.')), 'attributes'],
    [
      'eval by another opcode',
      () => archive(pickle('\x80\x04\x8c\x08builtins\x8c\x04eval\x93.')),
      'builtins.eval',
    ],
    ['getattr', () => archive(pickle('\x80\x02c__builtin__\ngetattr\n.')), '__builtin__.getattr'],
    ['a name of JavaScript', () => archive(pickle('\x80\x02c__proto__\nconstructor\n.')), 'constructor'],
    ['a persistent id of nothing', () => archive(pickle('\x80\x02K\x01Q.')), 'persistent id'],
    ['a storage that is not there', () => archive(view(0, [4], [1])), 'a/data/0'],
    ['a tensor longer than its storage', () => archive(view(1, [4], [1]), floats), "tensor 'w'", '16'],
    ['a tensor that steps out of it', () => archive(view(0, [2], [4]), floats), 'byte 20'],
    [
      'a storage shorter than it claims',
      () => archive(view(0, [4], [1]), { ...floats, data: floats.data.subarray(0, 12) }),
      'storage of 12',
    ],
    ['more strides than axes', () => archive(view(0, [2, 2], [1]), floats), '1 strides'],
    ['a list in itself', () => archive(pickle('\x80\x02]q\x00h\x00a.')), /no dict|nested/],
    ['a dict in itself', () => archive(pickle('\x80\x02}q\x00X\x01\0\0\0ah\x00s.')), /no state dict|nested/],
    ['two entries of one name', () => archive(view(0, [4], [1]), floats, floats), 'two entries'],
    [
      'an encrypted entry',
      () => archive(view(0, [4], [1]), { ...floats, claims: { flags: 1 } }),
      'encrypted',
    ],
    [
      'a compression unknown here',
      () => archive(view(0, [4], [1]), { ...floats, claims: { method: 14 } }),
      '14',
    ],
    [
      'compressed bytes that are none',
      () => archive(view(0, [4], [1]), { ...floats, claims: { method: 8 } }),
      'inflated',
    ],
    [
      'a bomb',
      () => archive(view(0, [4], [1]), { ...floats, claims: { method: 8, size: 0xfffffff0 } }),
      'claims',
    ],
    [
      'an entry of more bytes than the file',
      () =>
        archive(view(0, [4], [1]), {
          ...floats,
          claims: { size: 99999, compressedSize: 99999, headerOffset: 9 },
        }),
      'next entry',
    ],
    [
      'sizes that do not agree',
      () => archive(view(0, [4], [1]), { ...floats, claims: { compressedSize: 8 } }),
      'as many bytes',
    ],
  ]
  for (const [what, path, ...words] of broken) {
    it(`is what ${what} throws, naming the file`, () => {
      const name = path()
      expectCode('ERR_FILE', () => loadPyTorch(name), name, ...words)
    })
  }

  it('is what a list in itself throws, and nesting without end', () => {
    for (const data of [
      pickle('\x80\x02]q\x00h\x00a.'),
      pickle('\x80\x02', '('.repeat(0), ']'.repeat(5000), 'a'.repeat(4999), '.'),
    ]) {
      const path = archive(data)
      expectCode('ERR_FILE', () => loadPyTorchCheckpoint(path), 'nested')
    }
  })

  it('is what any file cut short throws, and never anything else', () => {
    for (let length = 0; length < small.length; length += 7) {
      const path = write(small.subarray(0, length))
      expectCode('ERR_FILE', () => loadPyTorch(path), path)
    }
  })

  it('or ERR_DTYPE or a state dict is what any file with a byte changed gives: no other error', () => {
    const bytes = Buffer.from(small)
    for (let at = 0; at < bytes.length; at += 1) {
      const [before, path] = [bytes[at] as number, join(folder, 'changed.pt')]
      bytes[at] = before ^ (1 << (at % 8))
      writeFileSync(path, bytes)
      bytes[at] = before
      try {
        for (const value of Object.values(loadPyTorch(path))) expect(value).toBeInstanceOf(Tensor)
      } catch (thrown) {
        expect(['ERR_FILE', 'ERR_DTYPE'], `${at}: ${thrown}`).toContain((thrown as { code?: string }).code)
      }
    }
  })

  it('does not stand for a path that is none', () => {
    expectCode('ERR_ARGUMENT', () => loadPyTorch(7 as never), 'path')
    expectCode('ERR_ARGUMENT', () => loadPyTorch(file('small'), { key: 7 as never }), 'key')
  })
})
