import { formatValue, printable } from './format-value.js'

/** Longest message: beyond it there are only more of the user's own values. */
const LONGEST = 2000

/**
 * Stable codes of {@link SpikenormError}. Match on these; messages may change.
 *
 * - `ERR_SHAPE`: axes or extents that do not fit; the message says which were expected.
 * - `ERR_DTYPE`: a dtype that is unknown, or that does not go with the others.
 * - `ERR_DEVICE`: no such device, or tensors of different devices in one call.
 * - `ERR_STEP_MODE`: a step mode that is not `'s'` or `'m'`, or that the class cannot be in.
 * - `ERR_TIME_STEP`: BNTT past its T, TEBN with another T than its scale has.
 * - `ERR_BATCH_STATISTICS`: training with one value per channel, which has no variance.
 * - `ERR_ARGUMENT`: any other wrong argument.
 * - `ERR_STATE_DICT`: missing or unexpected keys, or a wrong shape, in `loadStateDict`.
 * - `ERR_NO_FORWARD`: `backward` without a recorded forward that is pending.
 * - `ERR_DISPOSED`: a tensor, module or graph that has been freed.
 * - `ERR_FILE`: a file that cannot be read or written, or is not what its name says.
 * - `ERR_CUDA_UNAVAILABLE`: no usable driver, device or kernels; the message says which and what to do.
 * - `ERR_CUDA`: what the CUDA driver reports.
 * - `ERR_OUT_OF_MEMORY`: host or device memory is used up.
 * - `ERR_INTERNAL`: a defect of this library. Please report it.
 */
export type ErrorCode =
  | 'ERR_SHAPE'
  | 'ERR_DTYPE'
  | 'ERR_DEVICE'
  | 'ERR_STEP_MODE'
  | 'ERR_TIME_STEP'
  | 'ERR_BATCH_STATISTICS'
  | 'ERR_ARGUMENT'
  | 'ERR_STATE_DICT'
  | 'ERR_NO_FORWARD'
  | 'ERR_DISPOSED'
  | 'ERR_FILE'
  | 'ERR_CUDA_UNAVAILABLE'
  | 'ERR_CUDA'
  | 'ERR_OUT_OF_MEMORY'
  | 'ERR_INTERNAL'

/** A message on one line that a terminal does not obey, whatever names of files and tensors are in it. */
function onOneLine(message: unknown): string {
  const line = printable(
    (typeof message === 'string' ? message : formatValue(message)).replaceAll(/\s*\n\s*/g, ' '),
  )
  return line.length > LONGEST ? `${line.slice(0, LONGEST)}…` : line
}

/**
 * Every error of this library. `code` is stable; the message names the layer, the argument, what was expected
 * and what came. A call that throws has changed nothing.
 */
export class SpikenormError extends Error {
  /** `'SpikenormError'`, also where two copies of the package make `instanceof` fail. */
  override readonly name = 'SpikenormError'
  /** What went wrong, to match on. */
  readonly code: ErrorCode

  /** Made by the library; of use outside it for errors of own modules. */
  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(onOneLine(message), options)
    this.code = code
  }

  /** @internal The same error, naming the layer it came through. */
  within(where: string): SpikenormError {
    const error = new SpikenormError(this.code, `${where}: ${this.message}`)
    if (this.stack) error.stack = this.stack.replace(this.message, error.message)
    return error
  }

  /** @internal The same error, with what to do about it. */
  withAdvice(advice: string): SpikenormError {
    return advice === '' ? this : new SpikenormError(this.code, `${this.message}; ${advice}`)
  }

  /** @internal Anything thrown by the native side, as a SpikenormError. */
  static from(thrown: unknown): SpikenormError {
    if (thrown instanceof SpikenormError) return thrown
    const { code, message } = thrown as { code?: unknown; message?: unknown }
    const known = typeof code === 'string' && code.startsWith('ERR_') ? (code as ErrorCode) : 'ERR_ARGUMENT'
    // What N-API itself refuses (a string for a number, say) has a code of its own and is a wrong argument.
    return new SpikenormError(known, String(message ?? thrown), { cause: thrown })
  }
}
