/**
 * CUDA memory shared with another native addon: a layer reads memory that it does not own and hands out the address of its
 * result, with no copy through the host.
 *
 *     npx tsx examples/device-pointers.ts
 */
import { cuda, Tensor, ThresholdDependentBatchNorm2d, tensor } from 'spikenorm'

const reason = cuda.unavailableReason()
if (reason !== null) {
  console.log(`skipped: this example needs a CUDA device, and ${reason}`)
  process.exit(0)
}
const [T, N, C, H, W] = [4, 2, 8, 6, 6]
const shape = [T, N, C, H, W]
const frames = Float32Array.from({ length: T * N * C * H * W }, (_, i) => Math.sin(i * 1.7))

// Stands for the other addon: it owns device memory, which has to stay allocated while tensors over it are in use.
const owner = tensor(frames, shape, { device: 'cuda' })
const address: bigint = owner.devicePointer

// In: a tensor over that address. `stream` is the CUstream on which the other side has been writing; its work so far
// comes first, without the host waiting for it.
const x = Tensor.fromDevicePointer({ ptr: address, shape, dtype: 'float32', stream: cuda.stream() })
const norm = new ThresholdDependentBatchNorm2d(1, 1, C, { device: 'cuda' })
const [start, end] = [new cuda.Event(), new cuda.Event()]
start.record()
const y = norm.forward(x)
end.record()

// Out: the address of the result. Work that the other side launches on cuda.stream() comes after what computes it;
// on a stream of its own it has to wait first, here for all of the device.
cuda.synchronize()
console.log(`${cuda.devices()[0]!.name}: in at ${hex(address)}, out at ${hex(y.devicePointer)}`)
console.log(`forward: ${start.elapsedTime(end).toFixed(3)} ms`)

// The memory is one and the same: what its owner writes, the layer sees.
owner.copy_(
  tensor(
    frames.map((value) => 2 * value + 1),
    shape,
  ),
)
console.log(`shared: ${x.toFloat64Array().every((value, i) => value === Math.fround(2 * frames[i]! + 1))}`)

// And the numbers are those of the CPU.
const here = new ThresholdDependentBatchNorm2d(1, 1, C).forward(tensor(frames, shape)).toFloat64Array()
const worst = y.toFloat64Array().reduce((most, value, i) => Math.max(most, Math.abs(value - here[i]!)), 0)
console.log(`against the CPU: off by ${worst.toExponential(1)}`)

// An address that is not the device's, or too short a memory, throws instead of crashing.
try {
  Tensor.fromDevicePointer({ ptr: 4096n, shape, dtype: 'float32' })
} catch (error) {
  console.log((error as { code: string }).code)
}

function hex(pointer: bigint): string {
  return `0x${pointer.toString(16)}`
}
