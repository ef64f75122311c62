import { SpikenormError } from './errors.js'
import { native } from './native.js'

/** `'cuda'` is the first CUDA device. */
export type Device = 'cpu' | 'cuda' | `cuda:${number}`

/** What a CUDA device is. */
export interface CudaDevice {
  index: number
  name: string
  /** Total memory, bytes. */
  memory: number
}

/** Checks a device: `ERR_DEVICE` for an unknown name, `ERR_CUDA_UNAVAILABLE` with the reason without CUDA. */
export function parseDevice(device: unknown): Device {
  if (device === 'cpu') return device
  if (typeof device !== 'string' || !/^cuda(:\d+)?$/.test(device)) {
    throw new SpikenormError(
      'ERR_DEVICE',
      `device: expected 'cpu', 'cuda' or 'cuda:N', got '${String(device)}'`,
    )
  }
  throw new SpikenormError(
    'ERR_CUDA_UNAVAILABLE',
    `device: '${device}' cannot be used: ${cuda.unavailableReason()}`,
  )
}

export const cuda = {
  /** Whether `device: 'cuda'` can be used. Never throws. */
  isAvailable(): boolean {
    return cuda.unavailableReason() === null
  },
  /** Why it cannot, or `null`. */
  unavailableReason(): string | null {
    return native.cudaUnavailableReason() ?? null
  },
  /** The CUDA devices found; empty without CUDA. */
  devices(): CudaDevice[] {
    return []
  },
}
