// A worker thread of save-safetensors.test.ts: saves the same value to a path over and over, and posts how often it failed.

import { parentPort, workerData } from 'node:worker_threads'
import { tsImport } from 'tsx/esm/api'

const { full, saveSafetensors } = await tsImport('../../src/index.ts', import.meta.url)
const dict = { a: full([100_000], workerData.value) }
let failed = 0
for (let i = 0; i < workerData.count; i++) {
  try {
    saveSafetensors(workerData.path, dict)
  } catch {
    failed++
  }
}
parentPort.postMessage(failed)
