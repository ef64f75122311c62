// A second reader of the safetensors format, written from its specification and used by tests only: the product's
// own loader is one of the things under test, so it cannot be what the golden numbers come through.
//
// Layout: u64 little-endian header length, JSON header { name: { dtype, shape, data_offsets } }, then the bytes.

import { readFileSync } from 'node:fs'
import { fromHalfBits } from './half.js'

export interface StoredTensor {
  dtype: string
  shape: number[]
  values: Float64Array
}

export interface StoredFile {
  metadata: Record<string, string>
  tensors: Map<string, StoredTensor>
}

interface HeaderEntry {
  dtype: string
  shape: number[]
  data_offsets: [number, number]
}

const READERS: Record<string, { size: number; read: (view: DataView, at: number) => number }> = {
  F64: { size: 8, read: (view, at) => view.getFloat64(at, true) },
  F32: { size: 4, read: (view, at) => view.getFloat32(at, true) },
  F16: { size: 2, read: (view, at) => fromHalfBits(view.getUint16(at, true), 'float16') },
  BF16: { size: 2, read: (view, at) => fromHalfBits(view.getUint16(at, true), 'bfloat16') },
  I64: { size: 8, read: (view, at) => Number(view.getBigInt64(at, true)) },
  U8: { size: 1, read: (view, at) => view.getUint8(at) },
}

export function readSafetensors(path: string): StoredFile {
  const bytes = readFileSync(path)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const headerLength = Number(view.getBigUint64(0, true))
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + headerLength)) as Record<string, unknown>
  const { __metadata__: metadata = {}, ...entries } = header
  const tensors = new Map<string, StoredTensor>()
  for (const [name, entry] of Object.entries(entries) as [string, HeaderEntry][]) {
    const reader = READERS[entry.dtype]
    if (!reader) throw new Error(`${path}: tensor ${name} has dtype ${entry.dtype}, which no case may use`)
    const [start, end] = entry.data_offsets
    const count = (end - start) / reader.size
    const size = entry.shape.reduce((product, extent) => product * extent, 1)
    if (count !== size)
      throw new Error(`${path}: tensor ${name} has ${count} values for shape ${entry.shape}`)
    const values = new Float64Array(count)
    for (let i = 0; i < count; i++) values[i] = reader.read(view, 8 + headerLength + start + i * reader.size)
    tensors.set(name, { dtype: entry.dtype, shape: entry.shape, values })
  }
  return { metadata: metadata as Record<string, string>, tensors }
}
