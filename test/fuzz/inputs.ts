// Inputs for the readers of files: mutations of stored files, and files made by the formats' rules with some of them broken.

import { deflateRawSync } from 'node:zlib'
import { op, tensorOp, torchFile } from '../support/pickle.js'
import { safetensorsBytes } from '../support/safetensors-bytes.js'
import { type Entry, zip } from '../support/zip.js'
import type { Random } from './random.js'

const MOST_BYTES = 1 << 16

/** The input of a seed. */
export function inputOf(random: Random, corpus: readonly Uint8Array[]): Buffer {
  const make = random.pick<(random: Random, corpus: readonly Uint8Array[]) => Buffer>([
    ...[mutation, mutation, safetensors, pickled, archive],
  ])
  let bytes = make(random, corpus)
  // What is right by the rules is mutated too, at times.
  if (random.chance(0.2)) bytes = mutated(random, bytes, corpus)
  return bytes.subarray(0, MOST_BYTES)
}

function mutation(random: Random, corpus: readonly Uint8Array[]): Buffer {
  return mutated(random, Buffer.from(random.pick(corpus)), corpus)
}

function mutated(random: Random, bytes: Buffer, corpus: readonly Uint8Array[]): Buffer {
  let result: Buffer = Buffer.from(bytes)
  for (let rounds = 1 + random.below(4); rounds > 0; rounds--) result = mutatedOnce(random, result, corpus)
  return result
}

function mutatedOnce(random: Random, bytes: Buffer, corpus: readonly Uint8Array[]): Buffer {
  const at = random.below(bytes.length + 1)
  const length = Math.min(random.below(random.pick([2, 9, 65, 1025])), bytes.length - at)
  switch (random.below(8)) {
    case 0:
      return Buffer.from(bytes.subarray(0, at))
    case 1:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)])
    case 2:
      return Buffer.concat([bytes.subarray(0, at), random.bytes(length), bytes.subarray(at)])
    case 3:
      return Buffer.concat([bytes.subarray(0, at + length), bytes.subarray(at)])
    case 4: {
      const other = random.pick(corpus)
      const from = random.below(other.length + 1)
      return Buffer.concat([
        bytes.subarray(0, at),
        other.subarray(from, from + random.below(2000)),
        bytes.subarray(at),
      ])
    }
    case 5: {
      // A field of a header: a number at an edge.
      const value = BigInt(random.count())
      const field = Buffer.alloc(8)
      field.writeBigUInt64LE(value)
      field.copy(bytes, at, 0, random.pick([1, 2, 4, 8]))
      return bytes
    }
    case 6:
      return Buffer.from(
        bytes
          .toString('latin1')
          .replace(/\d+/g, (digits) => (random.chance(0.1) ? `${random.count()}` : digits)),
        'latin1',
      )
    default:
      if (at < bytes.length) bytes[at] = (bytes[at] as number) ^ (1 << random.below(8))
      return bytes
  }
}

const DTYPES = [
  ...['F64', 'F32', 'F16', 'BF16', 'U8', 'I64', 'BOOL', 'I8', 'I16', 'I32', 'U16', 'U32', 'U64', 'C64'],
  ...['F8_E4M3', 'F8_E5M2', 'F4', 'F6_E2M3', 'F8_E8M0', 'F9', ''],
]
const BYTES: Record<string, number> = {
  ...{
    F64: 8,
    F32: 4,
    F16: 2,
    BF16: 2,
    U8: 1,
    I64: 8,
    BOOL: 1,
    I8: 1,
    I16: 2,
    I32: 4,
    U16: 2,
    U32: 4,
    U64: 8,
    C64: 8,
  },
  ...{ F8_E4M3: 1, F8_E5M2: 1, F8_E8M0: 1 },
}

function safetensors(random: Random): Buffer {
  let at = 0
  const isBroken = random.chance(0.5)
  const entries = random.times(5, () => {
    const dtype = random.pick(DTYPES)
    const shape = random.times(random.chance(0.02) ? 300 : 4, () =>
      isBroken ? random.count() : random.below(4),
    )
    const bytes = shape.reduce((product, extent) => product * extent, BYTES[dtype] ?? 1)
    const offsets: unknown[] = [at, at + bytes]
    if (bytes < MOST_BYTES) at += bytes
    const entry: Record<string, unknown> = { dtype, shape, data_offsets: offsets }
    if (isBroken && random.chance(0.3)) {
      const key = random.pick([...Object.keys(entry), 'more'])
      entry[key] = random.pick<unknown>([
        null,
        -1,
        1.5,
        random.count(),
        [random.count(), random.count()],
        'x',
        {},
        [[]],
      ])
    }
    return `${JSON.stringify(random.text())}:${JSON.stringify(entry)}`
  })
  if (random.chance(0.4)) {
    const metadata = random.pick<unknown>([
      { [random.text()]: random.text() },
      {},
      null,
      7,
      { a: 1 },
      { a: {} },
    ])
    entries.push(`"__metadata__":${JSON.stringify(metadata)}`)
  }
  const nested = random.chance(0.02) ? `,"n":${'['.repeat(5000)}` : ''
  const padding = ' '.repeat(random.below(9))
  return safetensorsBytes(
    `{${entries.join(',')}${nested}}${padding}`,
    random.bytes(isBroken && random.chance(0.3) ? random.below(64) : Math.min(at, MOST_BYTES)),
  )
}

const GLOBALS = [
  ...['collections.OrderedDict', 'collections.Counter', 'torch.Size', 'torch.device', '_codecs.encode'],
  ...[
    'builtins.set',
    'builtins.bytearray',
    'torch._utils._rebuild_tensor',
    'torch._utils._rebuild_tensor_v2',
  ],
  ...[
    'torch._utils._rebuild_tensor_v3',
    'torch._utils._rebuild_parameter',
    'torch._tensor._rebuild_from_type_v2',
  ],
  ...[
    'torch.float32',
    'torch.FloatStorage',
    'torch.storage.UntypedStorage',
    'torch.Tensor',
    'posix.system',
    '__proto__.a',
  ],
]
const STORAGES = [
  ...[
    'FloatStorage',
    'DoubleStorage',
    'HalfStorage',
    'BFloat16Storage',
    'ByteStorage',
    'LongStorage',
    'IntStorage',
  ],
  ...['ShortStorage', 'CharStorage', 'BoolStorage', 'ComplexFloatStorage', 'NoStorage'],
]

function tensor(random: Random): Buffer {
  const size = random.times(random.chance(0.02) ? 100 : 3, () => random.count())
  const stride = random.chance(0.9) ? size.map(() => random.count()) : random.times(4, () => random.count())
  const bits = random.chance(0.3) ? [random.pick(['neg', 'conj', 'other'])] : undefined
  return tensorOp({
    ...{ key: random.pick(['0', '1', 'no']), count: random.count(), offset: random.count(), size, stride },
    ...{ storage: random.pick(STORAGES), ...(bits ? { bits } : {}) },
  })
}

/** A value and, at times, anything at all. */
function value(random: Random, depth: number): Buffer {
  const global = () => op.global(...(random.pick(GLOBALS).split(/\.(?=[^.]*$)/) as [string, string]))
  const nested = () => value(random, depth - 1)
  const simple = [
    ...[
      () => op.none,
      () => op.true,
      () => op.str(random.text()),
      () => op.long(random.count()),
      () => op.get(random.below(6)),
    ],
    ...[() => tensor(random), () => op.emptyTuple, () => op.list, () => op.dict, global],
  ]
  const deep = [
    () =>
      Buffer.concat([
        op.dict,
        op.put(random.below(6)),
        ...random.times(5, () => Buffer.concat([op.str(random.text()), nested(), op.setitem])),
      ]),
    () => Buffer.concat([op.list, op.put(random.below(6)), op.mark, ...random.times(6, nested), op.appends]),
    () => Buffer.concat([op.mark, ...random.times(6, nested), op.tuple]),
    () => Buffer.concat([global(), op.mark, ...random.times(7, nested), op.tuple, op.reduce]),
    () => Buffer.concat([nested(), nested(), op.build]),
    () => Buffer.concat([nested(), nested(), op.stackGlobal]),
    () => Buffer.concat([nested(), op.persid]),
  ]
  const made = random.pick(depth > 0 ? [...simple, ...deep, ...deep] : simple)()
  return random.chance(0.03) ? Buffer.concat([made, random.bytes(3)]) : made
}

function pickle(random: Random): Buffer {
  const whole = random.times(4, () => Buffer.concat([op.str(random.text()), value(random, 4), op.setitem]))
  return Buffer.concat([op.proto, op.dict, op.put(0), ...whole, op.stop])
}

function pickled(random: Random): Buffer {
  const data = random.bytes(random.below(200))
  return torchFile(pickle(random), { 0: data, 1: random.bytes(8) })
}

function archive(random: Random): Buffer {
  const names = ['a/data.pkl', 'a/byteorder', 'a/data/0', 'a/data/1', 'b/data.pkl', 'data.pkl', random.text()]
  const entries: Entry[] = random.times(5, (at) => {
    const raw =
      at === 0
        ? pickle(random)
        : random.chance(0.3)
          ? Buffer.alloc(random.below(100_000))
          : random.bytes(random.below(64))
    const isPacked = random.chance(0.4)
    const claims: NonNullable<Entry['claims']> = isPacked ? { method: 8, size: raw.length } : {}
    const wrong = ['size', 'compressedSize', 'method', 'flags', 'headerOffset'] as const
    if (random.chance(0.3)) claims[random.pick(wrong)] = Math.min(random.count(), 2 ** 16 - 1)
    return {
      name: at === 0 ? 'a/data.pkl' : random.pick(names),
      data: isPacked ? deflateRawSync(raw) : raw,
      claims,
    }
  })
  return zip(entries)
}
