/** The classes of this library that know no code of their user's, filled in by `nn/own-modules.ts`. */

const classes = new Set<unknown>()

/** Adds classes to those of the library. */
export function declareLibraryClasses(...more: readonly unknown[]): void {
  for (const each of more) classes.add(each)
}

/** Whether `candidate` is exactly one of the library's classes. */
export function isLibraryClass(candidate: unknown): boolean {
  return classes.has(candidate)
}
