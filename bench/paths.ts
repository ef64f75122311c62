// Where the suite's own files lie, and what it is called; the one place that knows, because compiled copies run from
// other folders.

import { fileURLToPath } from 'node:url'

/** Whether this is the suite of an installed package, bundled into dist/, and not that of the repository. */
export const IS_PACKAGED = !/\/bench\/paths\.[jt]s$/.test(import.meta.url)
/** The files that are opened by name. */
export const BENCH = new URL(IS_PACKAGED ? './bench/' : './', import.meta.url)
export const ROOT = new URL('../', import.meta.url)
/** Started by path, and bundled by itself. */
export const COPY_WORKER = IS_PACKAGED
  ? new URL('./copy-worker.mjs', import.meta.url)
  : new URL('measure/copy-worker.mjs', BENCH)
export const COMMAND = IS_PACKAGED ? 'npx spikenorm bench' : 'npm run bench --'
export const MANUAL = IS_PACKAGED ? fileURLToPath(new URL('README.md', BENCH)) : 'bench/README.md'
