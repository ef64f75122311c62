/** Calling functions of the user's that must be over when they return. */
import { callback } from './arguments.js'
import { SpikenormError } from './errors.js'

const AsyncFunction = (async () => {}).constructor

/** What `fn` returns. Throws `ERR_ARGUMENT`, naming the function `name` that was given it, where `fn` is asynchronous. */
export function callSynchronously<R>(name: string, fn: () => R): R {
  callback(name, 'fn', fn)
  // Before it has run at all, where that can be told.
  if ((fn as object) instanceof AsyncFunction) throw asynchronous(name)
  const result = fn()
  if (typeof (result as { then?: unknown } | null | undefined)?.then === 'function') {
    // What becomes of it is of no interest any more, and must not end the process.
    Promise.resolve(result).catch(() => {})
    throw asynchronous(name)
  }
  return result
}

function asynchronous(name: string): SpikenormError {
  return new SpikenormError(
    'ERR_ARGUMENT',
    `${name}: expected a synchronous function; what an asynchronous one awaits would run outside of ${name}`,
  )
}
