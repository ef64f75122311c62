// A worker thread of threads.test.ts: trains every class on the numbers it is given and posts the bytes of all that
// came out. Plain JavaScript, because a worker does not inherit the test runner's way of reading TypeScript.

import { parentPort, workerData } from 'node:worker_threads'
import { tsImport } from 'tsx/esm/api'

const { run } = await tsImport('./layer-run.ts', import.meta.url)
const results = []
for (let i = 0; i < workerData.repeats; i++) results.push(run(workerData.seed))
if (workerData.throwAtEnd) throw new Error('on purpose')
if (workerData.exitAtEnd) process.exit(0)
parentPort.postMessage(results)
