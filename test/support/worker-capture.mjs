// A worker thread of cuda-failures.test.ts: ends in the way it is told, mostly within a capture.

import { parentPort, workerData } from 'node:worker_threads'
import { tsImport } from 'tsx/esm/api'

const { BatchNorm1d, cuda, ones } = await tsImport('../../src/index.ts', import.meta.url)
const x = ones([4, 3], { device: 'cuda' })
const ways = {
  exit: () => cuda.graph(() => process.exit()),
  'exit after a forward': () =>
    cuda.graph(() => {
      new BatchNorm1d(3, { device: 'cuda' }).forward(x)
      process.exit()
    }),
  terminate: () =>
    cuda.graph(() => {
      parentPort.postMessage('inside')
      for (;;) x.clone().dispose()
    }),
  'out of heap': () =>
    cuda.graph(() => {
      const held = []
      for (;;) held.push(Array(1000).fill({}))
    }),
  'two devices': () =>
    cuda.graph(() => cuda.graph(() => process.exit(), { device: `cuda:${cuda.devices().length - 1}` })),
  'no capture': () => {
    const graph = cuda.graph(() => x.clone())
    graph.replay()
    new cuda.Event().record()
    globalThis.alive = [graph, x.clone()]
    process.exit()
  },
}
ways[workerData]()
