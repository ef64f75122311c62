/** Stable codes of {@link SpikenormError}. Match on these; messages may change. */
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

/**
 * Every error of this library. `code` is stable; the message names the layer, the argument, what was expected
 * and what came. A call that throws has changed nothing.
 */
export class SpikenormError extends Error {
  override readonly name = 'SpikenormError'
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }

  /** The same error, naming the layer it came through. */
  within(where: string): SpikenormError {
    const error = new SpikenormError(this.code, `${where}: ${this.message}`)
    if (this.stack) error.stack = this.stack.replace(this.message, error.message)
    return error
  }

  /** Anything thrown by the native side, as a SpikenormError. */
  static from(thrown: unknown): SpikenormError {
    if (thrown instanceof SpikenormError) return thrown
    const { code, message } = thrown as { code?: unknown; message?: unknown }
    const known = typeof code === 'string' && code.startsWith('ERR_') ? (code as ErrorCode) : 'ERR_ARGUMENT'
    // What N-API itself refuses (a string for a number, say) has a code of its own and is a wrong argument.
    return new SpikenormError(known, String(message ?? thrown), { cause: thrown })
  }
}
