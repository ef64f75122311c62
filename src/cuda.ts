/** CUDA devices, named as in `torch.cuda`. */
import type { Device } from './device.js'
import { native } from './native.js'

/** What a CUDA device is. */
export interface CudaDevice {
  index: number
  name: string
  /** Total memory, bytes. */
  memory: number
  /** Major and minor compute capability. */
  computeCapability: [number, number]
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
    return native.cudaDevices().map((device) => ({
      ...device,
      computeCapability: device.computeCapability as [number, number],
    }))
  },

  /** Waits until a device has done everything launched so far. Throws `ERR_CUDA` for what went wrong in it. */
  synchronize(device: Device = 'cuda'): void {
    native.cudaSynchronize(device)
  },
}
