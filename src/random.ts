import { native } from './native.js'

/**
 * Seeds the generator that initialises parameters and makes permutations, in this thread. Every thread starts from
 * seed 0.
 */
export function manualSeed(seed: number): void {
  native.manualSeed(seed)
}

/** A random permutation of 0 … n − 1. */
export function randperm(n: number): number[] {
  return native.randperm(n)
}
