export function bytesOf(data: {
  buffer: ArrayBufferLike
  byteOffset: number
  byteLength: number
}): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
}
