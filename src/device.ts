import { SpikenormError } from './errors.js'
import { formatValue } from './format-value.js'
import { native } from './native.js'

/** `'cuda'` is the first CUDA device, `'cuda:0'`. */
export type Device = 'cpu' | 'cuda' | `cuda:${number}`

/**
 * Checks a device and gives its full name: `ERR_DEVICE` for a name or number that is none, `ERR_CUDA_UNAVAILABLE` with
 * the reason where CUDA cannot be used. `where` is who was given it.
 */
export function parseDevice(device: unknown, where?: string): Device {
  const subject = where === undefined ? 'device' : `${where}: device`
  if (device === 'cpu') return device
  if (typeof device !== 'string' || !/^cuda(:\d+)?$/.test(device)) {
    throw new SpikenormError(
      'ERR_DEVICE',
      `${subject}: expected 'cpu', 'cuda' or 'cuda:N', got ${formatValue(device)}`,
    )
  }
  try {
    return native.checkDevice(device) as Device
  } catch (thrown) {
    if (thrown instanceof SpikenormError && thrown.code === 'ERR_CUDA_UNAVAILABLE') {
      throw new SpikenormError(thrown.code, `${subject}: '${device}' cannot be used: ${thrown.message}`)
    }
    throw thrown
  }
}
