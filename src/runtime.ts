/** Threads and memory of the process. */
import { wholeNumber } from './arguments.js'
import { type Device, parseDevice } from './device.js'
import { native } from './native.js'

/**
 * Number of CPU threads for everything that follows, in the whole process, as `torch.set_num_threads`; all cores at first.
 * Changes no result, not in one bit. Throws `ERR_ARGUMENT` outside of 1 to 1024.
 */
export function setNumThreads(threads: number): void {
  native.setNumThreads(wholeNumber('setNumThreads', 'threads', threads, 1, 1024))
}

/** Number of CPU threads in use, as `torch.get_num_threads`. */
export function getNumThreads(): number {
  return native.numThreads()
}

/** Bytes of the process's tensors on a device, without those in typed arrays, whose memory is V8's. */
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
  return native.memoryStats(parseDevice(device, 'memoryStats'))
}

/** Returns freed memory that is kept for reuse to the operating system, or of a CUDA device to its driver. */
export function emptyCache(device: Device = 'cpu'): void {
  native.sweep()
  native.emptyCache(parseDevice(device, 'emptyCache'))
}
