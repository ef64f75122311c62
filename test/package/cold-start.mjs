// Prints the milliseconds from the start of the process to the end of a first forward.
import { BatchNorm2d, tensor } from 'spikenorm'

const imported = performance.now()
const x = tensor(new Float32Array(4 * 8 * 8 * 8), [4, 8, 8, 8])
new BatchNorm2d(8).forward(x).toTypedArray()
console.log(JSON.stringify({ imported, forward: performance.now() }))
