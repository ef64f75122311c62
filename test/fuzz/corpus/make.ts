// Makes the stored inputs beside this file: `node --import tsx test/fuzz/corpus/make.ts`. Each has broken a reader once, or is of
// a kind that could. An input that breaks one later is copied here too.

import { writeFileSync } from 'node:fs'
import { deflateRawSync } from 'node:zlib'
import { dictOp, op, tensorOp, torchFile } from '../../support/pickle.js'
import { headerOf, safetensorsBytes } from '../../support/safetensors-bytes.js'
import { zip } from '../../support/zip.js'

const join = (...parts: Uint8Array[]) => Buffer.concat(parts)
const doubled = (make: (at: number) => Uint8Array) => join(...Array.from({ length: 60 }, (_, at) => make(at)))
const one = tensorOp({ count: 1, size: [1], stride: [1] })
const four = { 0: Buffer.alloc(4) }
const packed = deflateRawSync(Buffer.alloc(1e6), { level: 9 })

const INPUTS: Record<string, Buffer> = {
  'call-of-itself.pt': torchFile(
    join(
      ...[
        op.proto,
        op.global('torch._tensor', '_rebuild_from_type_v2'),
        op.put(0),
        op.list,
        op.put(1),
        op.mark,
      ],
      ...[op.get(0), op.none, op.get(1), op.appends, op.reduce, op.stop],
    ),
  ),
  'list-of-itself.pt': torchFile(join(op.proto, op.list, op.put(0), op.get(0), op.append, op.stop)),
  'doubled-lists.pt': torchFile(
    join(
      ...[op.proto, op.str('a'), op.put(0)],
      doubled((at) => join(op.list, op.put(at + 1), op.mark, op.get(at), op.get(at), op.appends)),
      ...[op.str('name'), op.stackGlobal, op.stop],
    ),
  ),
  'doubled-device.pt': torchFile(
    join(
      ...[op.proto, op.str('a'), op.put(0)],
      doubled((at) =>
        join(
          op.global('torch', 'device'),
          op.mark,
          op.get(at),
          op.get(at),
          op.tuple,
          op.reduce,
          op.put(at + 1),
        ),
      ),
      op.stop,
    ),
  ),
  'stride-0.pt': torchFile(dictOp({ w: tensorOp({ count: 1, size: [1e9], stride: [0] }) }), four),
  'past-counting.pt': torchFile(
    dictOp({
      w: tensorOp({ count: 1, size: [0, ...Array<number>(19).fill(2 ** 53 - 1)], stride: Array(20).fill(1) }),
    }),
    four,
  ),
  'negative-and-conjugate.pt': torchFile(
    dictOp({
      n: tensorOp({ count: 1, size: [1], stride: [1], bits: ['neg'] }),
      c: tensorOp({ count: 1, size: [1], stride: [1], bits: ['conj'] }),
    }),
    four,
  ),
  'narrow.pt': torchFile(
    dictOp(
      Object.fromEntries(
        ['BoolStorage', 'CharStorage', 'ShortStorage', 'IntStorage', 'ComplexFloatStorage'].map((storage) => [
          storage,
          tensorOp({ key: '0', count: 1, size: [1], stride: [1], storage }),
        ]),
      ),
    ),
    { 0: Buffer.alloc(8) },
  ),
  'overlapping.pt': torchFile(dictOp({ w: one }), four, [
    { name: 'a/data/1', data: Buffer.alloc(0), claims: { headerOffset: 0, size: 4, compressedSize: 4 } },
  ]),
  'packed-zeros.pt': torchFile(dictOp({ w: one }), {}, [
    { name: 'a/data/0', data: packed, claims: { method: 8, size: 1e6, compressedSize: packed.length } },
  ]),
  'two-pickles.pt': zip([
    { name: 'a/data.pkl', data: dictOp({}) },
    { name: 'b/data.pkl', data: dictOp({}) },
  ]),
  'shape-past-counting.safetensors': safetensorsBytes(
    '{"a":{"dtype":"F32","shape":[0,18446744073709551615],"data_offsets":[0,0]}}',
  ),
  'two-names.safetensors': safetensorsBytes(
    '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
    Buffer.alloc(2),
  ),
  'hole.safetensors': safetensorsBytes(
    '{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
    Buffer.alloc(2),
  ),
  'every-dtype.safetensors': safetensorsBytes(
    headerOf({
      b: ['BOOL', [2], 2],
      i: ['I16', [1], 2],
      u: ['U32', [1], 4],
      c: ['C64', [1], 8],
      f: ['F4', [4], 2],
      e: ['F8_E4M3', [2], 2],
    }),
    Buffer.alloc(20, 9),
  ),
  'metadata.safetensors': safetensorsBytes({ __metadata__: { format: 'pt', größe: '\n' } }),
}

for (const [name, bytes] of Object.entries(INPUTS)) writeFileSync(new URL(name, import.meta.url), bytes)
