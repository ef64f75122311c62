// A worker thread of array-memory.test.ts: ends with tensors over its arrays alive, one of them held for a backward, and
// posts what is written through an array over a tensor.

import { parentPort } from 'node:worker_threads'
import { tsImport } from 'tsx/esm/api'

const { BatchNorm1d, full, Tensor } = await tsImport('../../src/index.ts', import.meta.url)
const alive = Array.from({ length: 50 }, (_, i) =>
  Tensor.fromTypedArray(new Float32Array(1000).fill(i), [1000]),
)
const layer = new BatchNorm1d(4)
layer.forward(Tensor.fromTypedArray(Float32Array.from({ length: 12 }, Math.sin), [3, 4]))
globalThis.alive = { alive, layer }
const tensor = full([4], 1)
const array = tensor.asTypedArray()
array[0] = 2
parentPort.postMessage({
  pending: layer.pendingForwards,
  array: [...array],
  tensor: [...tensor.toTypedArray()],
})
