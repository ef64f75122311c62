// Garbage collection on demand: the flag can be set while the process runs.

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
const gc = runInNewContext('gc') as () => void

/** Collects what is garbage, synchronously. */
export function collect(): void {
  // What the first round finds may hold the last reference to something else.
  for (let i = 0; i < 3; i++) gc()
}

/** Collects, and lets the finalizers run that wait for the event loop. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 3; i++) {
    collect()
    await new Promise(setImmediate)
  }
}
