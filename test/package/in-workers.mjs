// Both ways of loading in worker threads at once, while the main thread uses the library too.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { isMainThread, parentPort, Worker } from 'node:worker_threads'
import { BatchNorm1d, tensor } from 'spikenorm'

const normalised = [
  ...new BatchNorm1d(1).forward(tensor(new Float32Array([1, 3, 8]), [3, 1])).toFloat64Array(),
]
if (isMainThread) {
  const byRequire = `
    const { BatchNorm1d, tensor } = require('spikenorm')
    const y = new BatchNorm1d(1).forward(tensor(new Float32Array([1, 3, 8]), [3, 1]))
    require('node:worker_threads').parentPort.postMessage([...y.toFloat64Array()])`
  const workers = [new Worker(new URL(import.meta.url)), new Worker(byRequire, { eval: true })]
  const answers = await Promise.all(workers.map(async (worker) => (await once(worker, 'message'))[0]))
  await Promise.all(workers.map((worker) => worker.terminate()))
  for (const answer of answers) assert.deepEqual(answer, normalised)
  // The addon is still there after its workers have gone.
  assert.equal(tensor([1], [1]).item(), 1)
} else {
  parentPort.postMessage(normalised)
}
