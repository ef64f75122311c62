// Files made to hang a reader, to fill memory or to run out of stack: each is refused at once, naming the limit. And files
// that are none: FIFOs and devices.

import { spawnSync } from 'node:child_process'
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { deflateRawSync } from 'node:zlib'
import { afterAll, describe, expect, it } from 'vitest'
import { loadPyTorch, loadPyTorchCheckpoint, loadSafetensors, loadSafetensorsMetadata } from '../src/index.js'
import { spikenorm } from './cli/support.js'
import { expectCode } from './support/compare.js'
import { dictOp, op, tensorOp, torchFile } from './support/pickle.js'
import { headerOf, safetensorsBytes } from './support/safetensors-bytes.js'

const folder = mkdtempSync(join(tmpdir(), 'spikenorm-'))
afterAll(() => rmSync(folder, { recursive: true }))
let files = 0
function write(bytes: Uint8Array): string {
  const path = join(folder, `${++files}.pt`)
  writeFileSync(path, bytes)
  return path
}

const LOADERS = { loadPyTorch, loadPyTorchCheckpoint, loadSafetensors, loadSafetensorsMetadata }
const concat = (...parts: Uint8Array[]) => Buffer.concat(parts)
const repeat = (count: number, ...parts: Uint8Array[]) => Buffer.concat(Array(count).fill(concat(...parts)))

/** Milliseconds in which a file of kilobytes is refused; a hang would take hours. */
const AT_ONCE = 3000

function expectRefused(
  pickle: Uint8Array,
  words: string | RegExp,
  storages: Record<string, Uint8Array> = {},
) {
  const path = write(torchFile(pickle, storages))
  for (const load of [loadPyTorch, loadPyTorchCheckpoint]) {
    const start = Date.now()
    expectCode('ERR_FILE', () => load(path), path, words)
    expect(Date.now() - start).toBeLessThan(AT_ONCE)
  }
}

describe('a small .pt file cannot take much time or memory', () => {
  const LIMIT = /more memory than a file of \d+ bytes may: the limit is 64 MiB and 64 times its size/

  it('by dicts in dicts that are the same, for whose keys a missing one is looked up', () => {
    const n = 200
    const level = (from: number, to: number) =>
      concat(
        op.dict,
        op.put(to),
        op.mark,
        ...Array.from({ length: n }, (_, i) => concat(op.str(`k${i}`), op.get(from))),
        op.setitems,
      )
    const innermost = concat(op.proto, op.dict, op.put(0), op.str('x'), op.none, op.setitem, op.pop)
    const path = write(
      torchFile(
        concat(innermost, ...[0, 1, 2].flatMap((i) => [level(i, i + 1), op.pop]), level(3, 4), op.stop),
      ),
    )
    const start = Date.now()
    expectCode('ERR_FILE', () => loadPyTorch(path, { key: 'net' }), "no 'net'")
    expect(Date.now() - start).toBeLessThan(AT_ONCE)
  })

  it('by a call whose arguments are the call itself', () => {
    const call = op.global('torch._tensor', '_rebuild_from_type_v2')
    const own = concat(op.list, op.put(1), op.mark, op.get(0), op.none, op.get(1), op.appends)
    expectRefused(concat(op.proto, call, op.put(0), own, op.reduce, op.stop), 'no function')
  })

  it('by a name that is a list of lists', () => {
    const doubled = Array.from({ length: 60 }, (_, i) =>
      concat(op.list, op.put(i + 1), op.mark, op.get(i), op.get(i), op.appends),
    )
    const lists = concat(op.str('a'), op.put(0), ...doubled)
    expectRefused(concat(op.proto, lists, op.str('name'), op.stackGlobal, op.stop), 'without a name')
  })

  it('by a text that is doubled', () => {
    const device = op.global('torch', 'device')
    const doubled = Array.from({ length: 60 }, (_, i) =>
      concat(device, op.mark, op.get(i), op.get(i), op.tuple, op.reduce, op.put(i + 1)),
    )
    expectRefused(concat(op.proto, op.str('cpu'), op.put(0), ...doubled, op.stop), 'torch.device')
  })

  it('by strides of 0', () => {
    const w = tensorOp({ count: 1, size: [1e9], stride: [0] })
    expectRefused(dictOp({ w }), LIMIT, { 0: Buffer.alloc(4) })
  })

  it('by many views of one storage', () => {
    const pickle = dictOp(
      Object.fromEntries(
        Array.from({ length: 200 }, (_, i) => [
          `w${i}`,
          tensorOp({ count: 250_000, size: [2], stride: [249_999] }),
        ]),
      ),
    )
    expectRefused(pickle, LIMIT, { 0: Buffer.alloc(1_000_000) })
  })

  it('by narrow integers, which are widened', () => {
    const w = tensorOp({ count: 1, size: [3e7], stride: [0], storage: 'CharStorage' })
    expectRefused(dictOp({ w }), LIMIT, { 0: Buffer.alloc(1) })
  })

  it('by zeros that are compressed', () => {
    const bytes = 1e8
    const packed = deflateRawSync(Buffer.alloc(bytes), { level: 9 })
    const claims = { method: 8, size: bytes, compressedSize: packed.length }
    const w = tensorOp({ count: bytes / 4, size: [1], stride: [1] })
    const path = write(torchFile(dictOp({ w }), {}, [{ name: 'a/data/0', data: packed, claims }]))
    expectCode('ERR_FILE', () => loadPyTorch(path), LIMIT)
  })

  it('by entries that share their bytes', () => {
    const w = tensorOp({ count: 1, size: [1], stride: [1] })
    const path = write(
      torchFile(dictOp({ w }), { 0: Buffer.alloc(4) }, [
        { name: 'a/data/1', data: Buffer.alloc(0), claims: { headerOffset: 0, size: 4, compressedSize: 4 } },
      ]),
    )
    expectCode('ERR_FILE', () => loadPyTorch(path), 'reaches into')
  })

  for (const [what, opcode] of Object.entries({ dicts: op.dict, lists: op.list, marks: op.mark })) {
    it(`by a pickle of ${what} alone`, () => {
      expectRefused(concat(op.proto, repeat(3_000_000, opcode), op.stop), LIMIT)
    })
  }

  it('by a dict that is copied over and over', () => {
    const many = concat(
      op.dict,
      op.put(0),
      op.mark,
      ...Array.from({ length: 5000 }, (_, i) => concat(op.long(i), op.none)),
      op.setitems,
    )
    const copy = concat(
      op.global('collections', 'OrderedDict'),
      op.mark,
      op.get(0),
      op.tuple,
      op.reduce,
      op.pop,
    )
    expectRefused(concat(op.proto, many, repeat(3000, copy), op.stop), LIMIT)
  })

  it('by a text that is made bytes over and over', () => {
    const copy = concat(op.global('_codecs', 'encode'), op.mark, op.get(0), op.tuple, op.reduce, op.pop)
    expectRefused(concat(op.proto, op.str('a'.repeat(1e6)), op.put(0), repeat(200, copy), op.stop), LIMIT)
  })

  it('by tensors of very many axes', () => {
    const size = Array<number>(100_000).fill(1)
    expectRefused(dictOp({ w: tensorOp({ count: 1, size, stride: size }) }), 'the limit is 64', {
      0: Buffer.alloc(4),
    })
  })

  it('by axes of 1 behind very many elements, whose strides are not those of contiguous memory', () => {
    const ones = Array<number>(63).fill(1)
    const w = tensorOp({ count: 1, size: [1e6, ...ones], stride: [0, ...ones.map(() => 7)] })
    const path = write(torchFile(dictOp({ w }), { 0: Buffer.from(new Float32Array([2]).buffer) }))
    const few = write(
      torchFile(dictOp({ w: tensorOp({ count: 1, size: [1e6], stride: [0] }) }), {
        0: Buffer.from(new Float32Array([2]).buffer),
      }),
    )
    const time = (file: string) => {
      const start = performance.now()
      const { w } = loadPyTorch(file)
      expect(w?.toTypedArray().every((value) => value === 2)).toBe(true)
      return performance.now() - start
    }
    time(few)
    expect(time(path)).toBeLessThan(5 * time(few) + 20)
  })

  it('by a shape past counting', () => {
    for (const size of [
      Array<bigint>(20).fill(2n ** 53n - 1n),
      [0, ...Array<bigint>(20).fill(2n ** 53n - 1n)],
    ]) {
      expectRefused(
        dictOp({ w: tensorOp({ count: 1, size, stride: size.map(() => 0) }) }),
        /past counting|too large/,
      )
    }
  })

  it('by keys that are two in Python and one here', () => {
    const w = tensorOp({ count: 1, size: [1], stride: [1] })
    const pickle = concat(op.proto, op.dict, op.str('1'), w, op.setitem, op.long(1), w, op.setitem, op.stop)
    expectRefused(pickle, "two keys '1'", { 0: Buffer.alloc(4) })
  })
})

describe('messages of a file', () => {
  it('do not command the terminal, and are not as long as the file', () => {
    const evil = `\u001b[31m\u202e${'x'.repeat(100_000)}`
    const wrong = write(torchFile(concat(op.proto, op.global(evil, 'f'), op.stop)))
    const key = write(torchFile(dictOp({ [evil]: op.none })))
    const storage = write(
      torchFile(dictOp({ [evil]: tensorOp({ key: '\u001b7', count: 9, size: [9], stride: [1] }) })),
    )
    const complex = write(safetensorsBytes(headerOf({ [evil]: ['C64', [1], 8] }), Buffer.alloc(8)))
    const refused: [string, () => unknown][] = [
      ['ERR_FILE', () => loadPyTorch(wrong)],
      ['ERR_FILE', () => loadPyTorch(key)],
      ['ERR_FILE', () => loadPyTorch(key, { key: 'net' })],
      ['ERR_FILE', () => loadPyTorch(storage)],
      ['ERR_DTYPE', () => loadSafetensors(complex)],
    ]
    for (const [code, action] of refused) {
      const { message } = expectCode(code, action)
      expect(message).not.toMatch(/[\p{Cc}\p{Cf}]/u)
      expect(message.length).toBeLessThan(1000)
    }
  })
})

describe('what is no regular file', () => {
  const isUnix = process.platform !== 'win32'

  it.skipIf(!isUnix)(
    'a FIFO is refused without waiting for a writer, by every loader and the command line',
    () => {
      const fifo = join(folder, 'fifo')
      expect(spawnSync('mkfifo', [fifo]).status).toBe(0)
      // In a process of its own: one that waits would wait for ever.
      const program = `
      import * as S from ${JSON.stringify(new URL('../src/index.ts', import.meta.url).href)}
      for (const name of ${JSON.stringify(Object.keys(LOADERS))})
        try { S[name](${JSON.stringify(fifo)}) } catch (e) { console.log(name, e.code, e.message) }`
      const { stdout, signal } = spawnSync(
        process.execPath,
        ['--import', import.meta.resolve('tsx'), '--input-type=module', '-e', program],
        { encoding: 'utf8', timeout: 20_000 },
      )
      expect(signal).toBeNull()
      expect(stdout.trim().split('\n')).toEqual(
        Object.keys(LOADERS).map((name) => `${name} ERR_FILE ${fifo}: is a FIFO, not a file`),
      )
      expect(spikenorm(['convert', fifo])).toMatchObject({
        status: 1,
        stderr: `spikenorm convert: ${fifo}: is a FIFO, not a file\n`,
      })
    },
  )

  it.skipIf(!isUnix)('nor is a device, a folder or a socket read', async () => {
    const socket = join(folder, 'socket')
    const server = createServer().listen(socket)
    await new Promise((resolve) => server.once('listening', resolve))
    try {
      for (const load of Object.values(LOADERS)) {
        expectCode('ERR_FILE', () => load('/dev/zero'), 'is a device, not a file')
        expectCode('ERR_FILE', () => load('/dev/null'), 'is a device, not a file')
        expectCode('ERR_FILE', () => load(folder), 'is a folder, not a file')
        expectCode('ERR_FILE', () => load(socket), 'is a socket, not a file')
      }
    } finally {
      server.close()
    }
  })
})

/** The beginning or the end of an archive with a pickle and a storage of so many bytes, of which there are none in it. */
function largeArchive(pickle: Buffer, bytes: number, part: 'start' | 'end'): Buffer {
  const entries = [
    { name: Buffer.from('a/data.pkl'), size: pickle.length, offset: 0 },
    { name: Buffer.from('a/data/0'), size: bytes, offset: 30 + 10 + pickle.length },
  ]
  if (part === 'start') {
    return concat(
      ...entries.map(({ name }, i) => {
        const local = Buffer.alloc(30)
        local.writeUInt32LE(0x04034b50)
        local.writeUInt16LE(name.length, 26)
        return concat(local, name, i === 0 ? pickle : Buffer.alloc(0))
      }),
    )
  }
  const directory = concat(
    ...entries.map(({ name, size, offset }) => {
      const [central, extra] = [Buffer.alloc(46), Buffer.alloc(20)]
      central.writeUInt32LE(0x02014b50)
      for (const field of [20, 24]) central.writeUInt32LE(0xffffffff, field)
      central.writeUInt16LE(name.length, 28)
      central.writeUInt16LE(extra.length, 30)
      central.writeUInt32LE(offset, 42)
      extra.writeUInt16LE(1)
      extra.writeUInt16LE(16, 2)
      for (const field of [4, 12]) extra.writeBigUInt64LE(BigInt(size), field)
      return concat(central, name, extra)
    }),
  )
  const at = entries[1]!.offset + 30 + 8 + bytes
  const [end64, locator, end] = [Buffer.alloc(56), Buffer.alloc(20), Buffer.alloc(22)]
  end64.writeUInt32LE(0x06064b50)
  end64.writeBigUInt64LE(2n, 32)
  end64.writeBigUInt64LE(BigInt(directory.length), 40)
  end64.writeBigUInt64LE(BigInt(at), 48)
  locator.writeUInt32LE(0x07064b50)
  locator.writeBigUInt64LE(BigInt(at + directory.length), 8)
  end.writeUInt32LE(0x06054b50)
  end.writeUInt16LE(2, 10)
  for (const field of [12, 16]) end.writeUInt32LE(0xffffffff, field)
  return concat(directory, end64, locator, end)
}

describe('a file larger than memory', () => {
  /** A file of a beginning and a hole, which takes no room on the disk. */
  function sparse(start: Uint8Array, size: number): string {
    const path = join(folder, `${++files}`)
    const fd = openSync(path, 'w')
    writeSync(fd, start)
    ftruncateSync(fd, size)
    closeSync(fd)
    return path
  }

  it.skipIf(process.platform !== 'linux')('is ERR_OUT_OF_MEMORY as a file of torch.save too', () => {
    const bytes = 2 ** 42
    const pickle = dictOp({ w: tensorOp({ count: bytes / 4, size: [bytes / 4], stride: [1] }) })
    const path = join(folder, 'large.pt')
    const fd = openSync(path, 'w')
    // The storage is a hole; its size and the directory's place do not fit 32 bits.
    const [start, end] = [largeArchive(pickle, bytes, 'start'), largeArchive(pickle, bytes, 'end')]
    writeSync(fd, start)
    writeSync(fd, end, 0, end.length, start.length + bytes)
    closeSync(fd)
    expectCode('ERR_OUT_OF_MEMORY', () => loadPyTorch(path), path)
  })

  it.skipIf(process.platform !== 'linux')('is ERR_OUT_OF_MEMORY, in one tensor or in many', () => {
    const terabyte = 2 ** 40
    const one = headerOf({ a: ['U8', [terabyte], terabyte] })
    const part = 2 ** 30
    const many = headerOf(
      Object.fromEntries(Array.from({ length: 1024 }, (_, i) => [`a${i}`, ['U8', [part], part]])),
    )
    for (const start of [one, many].map((header) => safetensorsBytes(header))) {
      const path = sparse(start, start.length + terabyte)
      expectCode('ERR_OUT_OF_MEMORY', () => loadSafetensors(path), path)
    }
  })
})
