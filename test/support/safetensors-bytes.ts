// A writer of .safetensors files for tests: any header, right or wrong.

/** The bytes of a file with this header and these bytes behind it. */
export function safetensorsBytes(header: object | string, data: Uint8Array = new Uint8Array()): Buffer {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header))
  const size = Buffer.alloc(8)
  size.writeBigUInt64LE(BigInt(json.length))
  return Buffer.concat([size, json, data])
}

/** A header for tensors that lie one behind another. */
export function headerOf(
  tensors: Record<string, readonly [dtype: string, shape: readonly number[], bytes: number]>,
) {
  let at = 0
  const entries = Object.entries(tensors).map(([name, [dtype, shape, bytes]]) => {
    const offsets = [at, at + bytes]
    at += bytes
    return [name, { dtype, shape, data_offsets: offsets }] as const
  })
  return Object.fromEntries(entries)
}
