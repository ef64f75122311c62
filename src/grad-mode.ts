import { callback } from './arguments.js'
import { SpikenormError } from './errors.js'

type GradMode = 'default' | 'enabled' | 'disabled'

let mode: GradMode = 'default'

const AsyncFunction = (async () => {}).constructor

function within<R>(wanted: GradMode, name: string, fn: () => R): R {
  callback(name, 'fn', fn)
  // Before it has run at all, where that can be told.
  if ((fn as object) instanceof AsyncFunction) throw asynchronous(name)
  const outer = mode
  mode = wanted
  let result: R
  try {
    result = fn()
  } finally {
    mode = outer
  }
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

/**
 * Runs `fn` without recording any forward, whatever the modules' modes, as `torch.no_grad`: nothing is kept for backward.
 * Returns what `fn` returns. Throws `ERR_ARGUMENT` where `fn` is asynchronous.
 */
export function noGrad<R>(fn: () => R): R {
  return within('disabled', 'noGrad', fn)
}

/**
 * Runs `fn` recording every forward, in eval mode too (frozen layers, gradients of the input), as `torch.enable_grad`.
 * Returns what `fn` returns. Throws `ERR_ARGUMENT` where `fn` is asynchronous.
 */
export function enableGrad<R>(fn: () => R): R {
  return within('enabled', 'enableGrad', fn)
}

/** Whether a forward of a module in this mode is recorded now. */
export function isRecording(training: boolean): boolean {
  return mode === 'default' ? training : mode === 'enabled'
}
