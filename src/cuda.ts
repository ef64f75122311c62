/** CUDA devices, named as in `torch.cuda`. */
import { argumentError, callback, device, readOptions, type Signature } from './arguments.js'
import type { Device } from './device.js'
import { parseDevice } from './device.js'
import { Handle } from './handle.js'
import { native } from './native.js'
import { whileCapturing } from './rollback.js'
import { callSynchronously } from './synchronous.js'

const GRAPH: Signature<{ device?: Device }> = { call: 'cuda.graph', leading: ['fn'], options: { device } }

/** What a CUDA device is. */
export interface CudaDevice {
  /** N of `'cuda:N'`. */
  index: number
  /** As the driver names it, such as `'NVIDIA H100 80GB HBM3'`. */
  name: string
  /** Total memory, bytes. */
  memory: number
  /** Major and minor compute capability. */
  computeCapability: [number, number]
}

/**
 * A mark on a device's stream, to time what lies between two of them, as `torch.cuda.Event(enable_timing=True)`.
 * Made by `new cuda.Event(device)`.
 */
class Event extends Handle {
  /** A mark on the stream of `device`, not yet set. Throws `ERR_CUDA_UNAVAILABLE` without CUDA. */
  constructor(device: Device = 'cuda') {
    super(native.cudaEvent(parseDevice(device, 'Event')))
  }

  /** Marks the end of what has been launched so far. */
  record(): void {
    native.cudaEventRecord(this.idFor('record'))
  }

  /** Waits until the device has come to the mark. */
  synchronize(): void {
    native.cudaEventSynchronize(this.idFor('synchronize'))
  }

  /** Milliseconds on the device from this mark to `end`, which is waited for. */
  elapsedTime(end: Event): number {
    return native.cudaEventElapsed(this.idFor('elapsedTime'), expectEvent(end).idFor('elapsedTime: end'))
  }
}

function expectEvent(end: unknown): Event {
  if (!(end instanceof Event)) throw argumentError('elapsedTime', 'end', 'a cuda.Event', end)
  return end
}

export type { Event as CudaEvent }

/** Work that was captured once by `cuda.graph` and is launched again as a whole, as `torch.cuda.CUDAGraph`. */
export class CudaGraph<T = unknown> extends Handle {
  /** What the captured function returned. Its tensors hold the values of the latest replay, none before the first. */
  readonly result: T

  /** @internal */
  constructor(id: number, result: T) {
    super(id)
    this.result = result
  }

  /** Launches the captured work; returns at once. Throws `ERR_DISPOSED` after `dispose()`. */
  replay(): void {
    native.cudaGraphReplay(this.idFor('replay'))
  }
}

/**
 * CUDA devices, with the names of `torch.cuda`. Importing it is safe where there is none: `cuda.isAvailable()` is then
 * false and whatever needs a device throws `ERR_CUDA_UNAVAILABLE`, with the reason.
 */
export const cuda = {
  /** A mark on a device's stream: {@link CudaEvent}. */
  Event,

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
    native.cudaSynchronize(parseDevice(device, 'synchronize'))
  },

  /**
   * Captures the launches of `fn` on a device, such as a training step, without running them; each `replay()` runs them
   * all with one call. The work uses the same memory every time: write new inputs into the same tensors with `copy_`, and
   * keep those tensors. Numbers are captured as they are (learning rates, BNTT's step index: `reset()` inside `fn`),
   * counters on the device go on. Run the step once or twice before capturing it. Values cannot be read or uploaded inside
   * `fn` (`ERR_CUDA`). Where `fn` throws, modules, gradients and optimisers are what they were before, since none of its
   * work has run. Throws `ERR_ARGUMENT` where `fn` is asynchronous.
   */
  graph<T>(fn: () => T, options?: { device?: Device }): CudaGraph<T> {
    const checked = readOptions('cuda.graph', options, arguments, GRAPH)
    callback('cuda.graph', 'fn', fn)
    const name = checked.device ?? parseDevice('cuda', 'cuda.graph')
    native.cudaBeginCapture(name)
    return whileCapturing(name, () => {
      let result: T
      try {
        result = callSynchronously('cuda.graph', fn)
      } catch (thrown) {
        native.cudaCancelCapture(name)
        throw thrown
      }
      return new CudaGraph(native.cudaEndCapture(name), result)
    })
  },

  /** The CUstream handle of the stream that everything on a device goes through, for other native addons. */
  stream(device: Device = 'cuda'): bigint {
    return native.cudaStream(parseDevice(device, 'stream'))
  },
}
