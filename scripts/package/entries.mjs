/**
 * What the package gives its users. A new entry is one line here; `npm run build:ts` then says what package.json must hold
 * for it.
 */

/** What users import, by name: `index` is `spikenorm`, any other `spikenorm/name`. */
export const LIBRARIES = {
  index: 'src/index.ts',
}

/** What users start, by the name of the file in dist/. package.json's `bin` names those that get a command. */
export const PROGRAMS = {}

/** Files that programs start or read beside themselves: where they come from, and where in dist/ they go. */
export const ASSETS = {}
