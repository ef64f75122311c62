/**
 * What can go wrong through no defect of this program; the message is all that is printed. It may quote a file, whose names
 * must not command the terminal.
 */
import { printable } from '../format-value.js'

/** A mistake in the command line: exit status 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError'

  constructor(message: string, options?: ErrorOptions) {
    super(printable(message), options)
  }
}

/** Something that was asked for cannot be done: exit status 1. */
export class Failure extends Error {
  override readonly name = 'Failure'

  constructor(message: string, options?: ErrorOptions) {
    super(printable(message), options)
  }
}
