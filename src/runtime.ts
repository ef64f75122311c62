/** Threads and memory of the process. */
import { type Device, parseDevice } from './device.js'
import { native } from './native.js'

/** Number of threads for everything that follows, in the whole process; all cores at first. Changes no result. */
export function setNumThreads(threads: number): void {
  native.setNumThreads(threads)
}

export function getNumThreads(): number {
  return native.numThreads()
}

/** Bytes of the process's tensors on a device. */
export interface MemoryStats {
  /** Held by tensors. */
  allocated: number
  /** Freed and kept for reuse. */
  cached: number
  /** Largest `allocated` so far. */
  peak: number
}

/**
 * Memory outside V8's heap, after freeing what has been garbage collected, as `torch.cuda.memory_stats`. Of a CUDA
 * device it does not wait for what is being computed.
 */
export function memoryStats(device: Device = 'cpu'): MemoryStats {
  native.sweep()
  return native.memoryStats(parseDevice(device))
}

/** Returns freed memory that is kept for reuse to the operating system, or of a CUDA device to its driver. */
export function emptyCache(device: Device = 'cpu'): void {
  native.sweep()
  native.emptyCache(parseDevice(device))
}
