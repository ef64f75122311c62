/** Threads and memory of the process. */
import { native } from './native.js'

/** Number of threads for everything that follows, in the whole process; all cores at first. Changes no result. */
export function setNumThreads(threads: number): void {
  native.setNumThreads(threads)
}

export function getNumThreads(): number {
  return native.numThreads()
}

/** Bytes of the process's tensors on the CPU. */
export interface MemoryStats {
  /** Held by tensors. */
  allocated: number
  /** Freed and kept for reuse. */
  cached: number
  /** Largest `allocated` so far. */
  peak: number
}

/** Memory outside V8's heap, after freeing what has been garbage collected. */
export function memoryStats(): MemoryStats {
  native.sweep()
  return native.memoryStats()
}

/** Returns freed memory that is kept for reuse to the operating system. */
export function emptyCache(): void {
  native.sweep()
  native.emptyCache()
}
