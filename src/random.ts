import { wholeNumber } from './arguments.js'
import { native } from './native.js'

/**
 * Seeds the generator that initialises parameters and makes permutations, in this thread. Every thread starts from
 * seed 0. The numbers are not PyTorch's.
 */
export function manualSeed(seed: number): void {
  native.manualSeed(seed)
}

/** A random permutation of 0 … n − 1, as `torch.randperm`. Throws `ERR_ARGUMENT` for an `n` that is no whole number. */
export function randperm(n: number): number[] {
  // N-API would read -1 as 4294967295 and make that many.
  return native.randperm(wholeNumber('randperm', 'n', n, 0))
}
