import { callSynchronously } from './synchronous.js'

type GradMode = 'default' | 'enabled' | 'disabled'

let mode: GradMode = 'default'

function within<R>(wanted: GradMode, name: string, fn: () => R): R {
  const outer = mode
  mode = wanted
  try {
    return callSynchronously(name, fn)
  } finally {
    mode = outer
  }
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
