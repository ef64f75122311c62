// Suites that hold on any device run once per device. One that is not here is skipped under its own name, with the
// reason in it.

import { describe, it } from 'vitest'
import { cuda, type Device, SpikenormError, tensor } from '../../src/index.js'

/** Named in full, as a tensor names its device. */
const DEVICES: Device[] = ['cpu', 'cuda:0']

/** Why a device cannot be used, or null. */
function missing(device: Device): string | null {
  if (device === 'cpu' || cuda.isAvailable()) return null
  try {
    tensor([0], [1], { device })
  } catch (error) {
    if (error instanceof SpikenormError) return `${error.code}: ${error.message}`
    throw error
  }
  return 'cuda.isAvailable() is false, yet a tensor was made there'
}

export function describeOnDevices(claim: string, suite: (device: Device) => void): void {
  for (const device of DEVICES) {
    const reason = missing(device)
    describe(`${claim} on ${device}`, () => {
      if (reason === null) suite(device)
      else it.skip(`(not run here: ${reason})`, () => {})
    })
  }
}
