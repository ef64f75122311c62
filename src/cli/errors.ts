/** What can go wrong through no defect of this program; the message is all that is printed. */

/** A mistake in the command line: exit status 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** Something that was asked for cannot be done: exit status 1. */
export class Failure extends Error {
  override readonly name = 'Failure'
}
