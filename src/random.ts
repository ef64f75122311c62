import { getHeapStatistics } from 'node:v8'
import { refuseSurplus, wholeNumber } from './arguments.js'
import { SpikenormError } from './errors.js'
import { native } from './native.js'

/**
 * Seeds the generator that initialises parameters and makes permutations, in this thread. Every thread starts from
 * seed 0. The numbers are not PyTorch's. Throws `ERR_ARGUMENT` for a seed that is no whole number.
 */
export function manualSeed(seed: number): void {
  refuseSurplus('manualSeed', arguments, ['seed'])
  native.manualSeed(wholeNumber('manualSeed', 'seed', seed, Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER))
}

/** V8 makes a hash table of a longer array of numbers, and ends the process for one four times as long. */
const LONGEST = 2 ** 25

/**
 * A random permutation of 0 … n − 1, as `torch.randperm`. Throws `ERR_ARGUMENT` for an `n` that is no whole number from 0 to
 * 2^25, `ERR_OUT_OF_MEMORY` where there is no room for one so long.
 */
export function randperm(n: number): number[] {
  refuseSurplus('randperm', arguments, ['n'])
  const length = wholeNumber('randperm', 'n', n, 0, LONGEST)
  const drawn = roomFor(length)
  native.randperm(drawn.buffer)
  // Of known length: it does not grow as it is filled.
  const permutation = new Array<number>(length)
  for (let at = 0; at < length; at++) permutation[at] = drawn[at] as number
  return permutation
}

/** V8 ends the process where its heap cannot hold an array: that is found out before. */
function roomFor(length: number): Uint32Array {
  const { heap_size_limit: limit, used_heap_size: used } = getHeapStatistics()
  try {
    if (8 * length <= limit - used) return new Uint32Array(length)
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
  }
  throw new SpikenormError('ERR_OUT_OF_MEMORY', `randperm: no memory for an array of ${length} numbers`)
}
