// An assembler of pickles for tests: what torch.save writes, and what it never would.

import { type Entry, zip } from './zip.js'

const u8 = (value: number) => Buffer.from([value])
const u32 = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value >>> 0)
  return bytes
}
const ascii = (text: string) => Buffer.from(text, 'latin1')
const join = (...parts: Uint8Array[]) => Buffer.concat(parts)

export const op = {
  proto: join(u8(0x80), u8(2)),
  stop: ascii('.'),
  none: ascii('N'),
  false: u8(0x89),
  true: u8(0x88),
  mark: ascii('('),
  tuple: ascii('t'),
  list: ascii(']'),
  dict: ascii('}'),
  emptyTuple: ascii(')'),
  append: ascii('a'),
  appends: ascii('e'),
  setitem: ascii('s'),
  setitems: ascii('u'),
  reduce: ascii('R'),
  pop: ascii('0'),
  build: ascii('b'),
  persid: ascii('Q'),
  stackGlobal: u8(0x93),
  str(text: string) {
    const bytes = Buffer.from(text)
    return join(ascii('X'), u32(bytes.length), bytes)
  },
  global: (module: string, name: string) => ascii(`c${module}\n${name}\n`),
  put: (index: number) => join(ascii('r'), u32(index)),
  get: (index: number) => join(ascii('j'), u32(index)),
  /** Any whole number that is not negative. */
  long(value: number | bigint) {
    const bytes: number[] = []
    for (let rest = BigInt(value); rest > 0n; rest >>= 8n) bytes.push(Number(rest & 255n))
    return Buffer.from([0x8a, bytes.length + 1, ...bytes, 0])
  },
  tuples: (items: readonly (number | bigint)[]) => join(op.mark, ...items.map(op.long), op.tuple),
}

export interface TensorOfPickle {
  key?: string
  /** Elements of the storage. */
  count: number
  offset?: number
  size: readonly (number | bigint)[]
  stride: readonly (number | bigint)[]
  storage?: string
  /** Bits of PyTorch's: `neg`, `conj`. */
  bits?: readonly string[]
}

/** A tensor as torch.save writes it. */
export function tensorOp({
  key = '0',
  count,
  offset = 0,
  size,
  stride,
  storage,
  bits,
}: TensorOfPickle): Buffer {
  const persistent = join(
    ...[
      op.mark,
      op.str('storage'),
      op.global('torch', storage ?? 'FloatStorage'),
      op.str(key),
      op.str('cpu'),
    ],
    ...[op.long(count), op.tuple, op.persid],
  )
  const metadata = bits ? [op.dict, ...bits.flatMap((bit) => [op.str(bit), op.true, op.setitem])] : []
  return join(
    ...[op.global('torch._utils', '_rebuild_tensor_v2'), op.mark, persistent, op.long(offset)],
    ...[op.tuples(size), op.tuples(stride), op.false],
    ...[op.global('collections', 'OrderedDict'), op.emptyTuple, op.reduce, ...metadata, op.tuple, op.reduce],
  )
}

/** A pickle of a dict. */
export function dictOp(items: Record<string, Uint8Array>): Buffer {
  return join(
    op.proto,
    op.dict,
    ...Object.entries(items).flatMap(([key, value]) => [op.str(key), value, op.setitem]),
    op.stop,
  )
}

/** The file that torch.save makes of a pickle and storages. */
export function torchFile(
  pickle: Uint8Array,
  storages: Record<string, Uint8Array> = {},
  more: readonly Entry[] = [],
): Buffer {
  return zip([
    { name: 'a/data.pkl', data: pickle },
    { name: 'a/byteorder', data: Buffer.from('little') },
    ...Object.entries(storages).map(([key, data]) => ({ name: `a/data/${key}`, data })),
    ...more,
  ])
}
