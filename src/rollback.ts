/**
 * Taking back what a call has changed when it throws. While a call runs {@link atomically}, whatever changes the state of a
 * module says how to undo it ({@link changed}); a throw undoes all that came since the innermost such call began, newest
 * first. What undoing would have needed is freed when the outermost call has succeeded.
 */
import { native } from './native.js'

/** A change that has been made. At most one of the two is called, once. */
export interface Change {
  /** Makes everything what it was before. Does not throw. */
  undo(): void
  /** Frees what only `undo` would have needed. */
  release?(): void
  /** What `release` frees, if anything. */
  releases?: object | null
}

/** Values that are about to be written in place. */
interface Values {
  readonly id: number
  readonly dtype: string
  readonly device: string
  readonly isDisposed: boolean
}

/** Changes since the outermost call began, oldest first; `null` outside of any. */
let changes: Change[] | null = null
/** How many calls of {@link atomically} are running, one in the other. */
let depth = 0
/** Where the innermost one's changes begin. */
let start = 0
/** What has been made since {@link whileCapturing} began; `null` outside. */
let captured: WeakSet<object> | null = null
/** The devices whose work is captured. */
const capturing = new Set<string>()
/** Whose values have been copied, and where the latest copy is among the changes. */
const copies = new Map<Values, number>()

/** Whether changes are recorded now. Outside, {@link changed} need not be called. */
export function isAtomic(): boolean {
  return changes !== null
}

/** Whether a function is running whose work on a device is captured. */
export function isCapturing(): boolean {
  return captured !== null
}

/** Records a change; outside of {@link atomically} it is final at once. */
export function changed(change: Change): void {
  if (changes === null) {
    change.release?.()
    return
  }
  changes.push(change)
  // Between the calls of a captured function nothing can be undone but all of it.
  if (depth === 0) releaseCaptured(changes.length - 1)
}

/** Says that `thing` has been made and is freed where it is undone: once replaced, it need not wait for the end of a capture. */
export function made(thing: object): void {
  captured?.add(thing)
}

/** Copies values that are about to be written in place, unless the innermost call has done so. */
export function keepValues(values: Values): void {
  // What is captured is not run: no values are written, and a copy of them would be captured too.
  if (changes === null || capturing.has(values.device)) return
  const latest = copies.get(values)
  if (latest !== undefined && latest >= start) return
  const { id, dtype } = values
  const copy = native.tensorCast(id, dtype)
  copies.set(values, changes.length)
  changes.push({
    undo() {
      if (latest === undefined) copies.delete(values)
      else copies.set(values, latest)
      if (!values.isDisposed) native.tensorCopy(id, copy)
      native.free(copy)
    },
    release: () => native.free(copy),
  })
}

/**
 * Runs `body`; where it throws, every change since is undone. `settle` makes what has been put off final, at the end of the
 * outermost call: where it throws, so has `body`.
 */
export function atomically<R>(body: () => R, settle?: () => void): R {
  depth++
  try {
    return undoneIfThrown(body, (ownStart) => {
      if (depth > 1) return
      settle?.()
      if (captured !== null) releaseCaptured(ownStart)
    })
  } finally {
    depth--
  }
}

/** The same for a function whose work on `device` is captured and not run. */
export function whileCapturing<R>(device: string, body: () => R): R {
  const [outerDepth, outerCaptured] = [depth, captured]
  depth = 0
  captured = new WeakSet()
  capturing.add(device)
  try {
    return undoneIfThrown(body)
  } finally {
    depth = outerDepth
    captured = outerCaptured
    capturing.delete(device)
  }
}

/** Runs `body` and then `end`, which is told where the changes since begin; the outermost one makes all of them final. */
function undoneIfThrown<R>(body: () => R, end?: (ownStart: number) => void): R {
  const isOutermost = changes === null
  const journal = changes ?? []
  changes = journal
  const outerStart = start
  const ownStart = journal.length
  start = ownStart
  try {
    const result = body()
    end?.(ownStart)
    if (isOutermost) release()
    return result
  } catch (thrown) {
    undo(journal, ownStart)
    throw thrown
  } finally {
    start = outerStart
    if (isOutermost) {
      changes = null
      copies.clear()
    }
  }
}

/** Undoes the changes from `from` on, newest first. */
function undo(journal: Change[], from: number): void {
  while (journal.length > from) journal.pop()?.undo()
}

/** Makes all changes final. */
function release(): void {
  for (const change of changes ?? []) change.release?.()
}

/**
 * Frees early, of the changes from `from` on, what has been made since the capture began: the memory is used again in
 * it, and undoing all of it ends with freeing that in any case.
 */
function releaseCaptured(from: number): void {
  for (const change of changes?.slice(from) ?? []) {
    if (!change.releases || !captured?.has(change.releases)) continue
    change.release?.()
    delete change.release
  }
}
