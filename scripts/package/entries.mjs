/**
 * What the package gives its users. A new entry is one line here; `npm run build:ts` then says what package.json must hold
 * for it.
 */

import { readdirSync } from 'node:fs'

const peers = new URL('../../bench/peers/', import.meta.url)

/** What users import, by name: `index` is `spikenorm`, any other `spikenorm/name`. */
export const LIBRARIES = {
  index: 'src/index.ts',
  tfjs: 'src/tfjs/index.ts',
  'tfjs/layers': 'src/tfjs/layers.ts',
}

/** What users start, by the name of the file in dist/. package.json's `bin` names those that get a command. */
export const PROGRAMS = {
  cli: 'src/cli/main.ts',
  // What `spikenorm bench` starts, and the threads of its copies.
  bench: 'bench/main.ts',
  'copy-worker': 'bench/measure/copy-worker.mjs',
}

/** Files that programs start or read beside themselves: where they come from, and where in dist/ they go. */
export const ASSETS = {
  'bench/README.md': 'bench/README.md',
  ...Object.fromEntries(
    readdirSync(peers)
      .filter((name) => name.endsWith('.py'))
      .map((name) => [`bench/peers/${name}`, `bench/peers/${name}`]),
  ),
  // The digits of the training suite, and whose they are.
  'examples/digits/data/digits.csv.gz': 'data/digits.csv.gz',
  'examples/digits/data/README.md': 'data/README.md',
}
