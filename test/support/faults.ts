// Native calls that fail on purpose, one after the other.

import { SpikenormError } from '../../src/index.js'
import { native } from '../../src/native.js'

/** Calls that take nothing and compute nothing: giving memory back and telling whose it is. */
const NEVER_FAIL = new Set(['free', 'track', 'trackSaved', 'sweep'])

type Calls = Record<string, (...args: unknown[]) => unknown>

/** What a failing call throws. */
export class Fault extends SpikenormError {
  constructor(call: string) {
    super('ERR_OUT_OF_MEMORY', `on purpose: ${call}`)
  }
}

/**
 * Runs `operation` with its first native call failing, then with its second, and so on until none is left to fail, which is
 * the run whose result is returned. `afterFault` is called after each that failed, with the calls that were made.
 */
export function withEveryFault<R>(operation: () => R, afterFault: (call: string) => void): R {
  for (let failing = 1; ; failing++) {
    const { result, failed } = withFaultAt(failing, operation)
    if (failed === null) return result as R
    afterFault(`${failing}, ${failed}`)
  }
}

function withFaultAt<R>(failing: number, operation: () => R): { result?: R; failed: string | null } {
  const calls = native as unknown as Calls
  const originals = { ...calls }
  let count = 0
  let failed: string | null = null
  for (const [name, original] of Object.entries(originals)) {
    if (NEVER_FAIL.has(name)) continue
    calls[name] = (...args) => {
      count++
      if (count === failing) {
        failed = name
        throw new Fault(name)
      }
      return original(...args)
    }
  }
  try {
    return { result: operation(), failed: null }
  } catch (thrown) {
    if (failed === null) throw thrown
    return { failed }
  } finally {
    Object.assign(calls, originals)
  }
}
