/**
 * Taking back a forward that failed half-way: a call that throws changes nothing, also where modules inside had
 * already run.
 */
import type { Module } from './module.js'
import type { Tensor } from './tensor.js'

/** What one module was before a forward. Exactly one of the two is called, once. */
export interface Checkpoint {
  /** Makes the module what it was. */
  undo(): void
  /** Frees what `undo` would have needed. */
  release(): void
}

let isInside = false

/**
 * Runs a forward of `root`, a module with others below it; where it throws, everything below is what it was before.
 * Nested calls are covered by the outermost one.
 */
export function atomically<R>(root: Module, body: () => R): R {
  if (isInside) return body()
  const checkpoints = root.modules().map((module) => module.checkpoint())
  isInside = true
  try {
    const result = body()
    for (const checkpoint of checkpoints) checkpoint.release()
    return result
  } catch (thrown) {
    for (const checkpoint of checkpoints) checkpoint.undo()
    throw thrown
  } finally {
    isInside = false
  }
}

/** Checkpoints as one. */
export function combined(...checkpoints: readonly Checkpoint[]): Checkpoint {
  return {
    undo() {
      for (const checkpoint of checkpoints) checkpoint.undo()
    },
    release() {
      for (const checkpoint of checkpoints) checkpoint.release()
    },
  }
}

/** A checkpoint of values that are changed in place: copies, put back by `undo`. */
export function checkpointOf(values: readonly Tensor[]): Checkpoint {
  const copies = values.map((value) => [value, value.clone()] as const)
  const release = () => {
    for (const [, copy] of copies) copy.dispose()
  }
  return {
    release,
    undo() {
      for (const [value, copy] of copies) value.copy_(copy)
      release()
    },
  }
}
