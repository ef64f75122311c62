/** Memory of V8's for the values of tensors. */
import { markAsUntransferable } from 'node:worker_threads'
import { SpikenormError } from './errors.js'

/** @returns a new ArrayBuffer of zeros; throws `ERR_OUT_OF_MEMORY` where V8 has none */
export function newArrayBuffer(bytes: number): ArrayBuffer {
  try {
    return new ArrayBuffer(bytes)
  } catch (cause) {
    throw new SpikenormError('ERR_OUT_OF_MEMORY', `no memory for an array of ${bytes} bytes`, { cause })
  }
}

/**
 * @returns the same for memory that a tensor is to lie in, which stays the tensor's: structuredClone and postMessage refuse
 * to transfer it (Node 20 copies it), and `transfer()` gives a copy
 */
export function newTensorBuffer(bytes: number): ArrayBuffer {
  const buffer = newArrayBuffer(bytes)
  markAsUntransferable(buffer)
  const copy = (length: number = bytes) => {
    const copied = newArrayBuffer(length)
    new Uint8Array(copied).set(new Uint8Array(buffer, 0, Math.min(length, bytes)))
    return copied
  }
  for (const name of ['transfer', 'transferToFixedLength'] as const) {
    if (name in buffer) Object.defineProperty(buffer, name, { value: copy })
  }
  return buffer
}
