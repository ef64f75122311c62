import { refuseSurplus, wholeNumber } from './arguments.js'
import { native } from './native.js'

/**
 * Seeds the generator that initialises parameters and makes permutations, in this thread. Every thread starts from
 * seed 0. The numbers are not PyTorch's. Throws `ERR_ARGUMENT` for a seed that is no whole number.
 */
export function manualSeed(seed: number): void {
  refuseSurplus('manualSeed', arguments, ['seed'])
  native.manualSeed(wholeNumber('manualSeed', 'seed', seed, Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER))
}

/** V8 ends the process where it is asked for a longer array. */
const LONGEST = 2 ** 25

/**
 * A random permutation of 0 … n − 1, as `torch.randperm`. Throws `ERR_ARGUMENT` for an `n` that is no whole number from 0 to
 * 2^25.
 */
export function randperm(n: number): number[] {
  refuseSurplus('randperm', arguments, ['n'])
  return native.randperm(wholeNumber('randperm', 'n', n, 0, LONGEST))
}
