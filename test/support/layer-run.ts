// One forward and backward of every family, large enough that several threads share the work: shapes whose parts do
// not divide evenly, in float32 and bfloat16. Returns the bytes of everything that came out.

import { manualSeed, NeuNorm, tensor } from '../../src/index.js'
import { bytesOf } from './bytes.js'
import { createLayer, NORM_CLASSES, randomInput } from './layers.js'
import type { FloatType } from './tolerances.js'

const [T, N, C, H, W] = [3, 5, 37, 19, 13] as const
const SHAPE = [T, N, C, H, W]

export function run(seed: number): Record<string, Uint8Array> {
  const results: Record<string, Uint8Array> = {}
  for (const dtype of ['float32', 'bfloat16'] as FloatType[]) {
    const size = T * N * C * H * W
    const [x, dy] = [seed, seed + 1].map((s) => tensor(randomInput(s, size, 'float64', 2), SHAPE, { dtype }))
    manualSeed(seed)
    const layers = NORM_CLASSES.filter(({ spatial }) => spatial === 2)
      .map((kind) => createLayer(kind, { channels: C, steps: T, stepMode: 'm', dtype }))
      .concat(new NeuNorm(C, H, W, { stepMode: 'm', dtype }) as never)
    for (const layer of layers) {
      const name = `${layer.constructor.name} ${dtype}`
      results[`${name} y`] = bytesOf(layer.forward(x!).toTypedArray())
      results[`${name} dx`] = bytesOf(layer.backward(dy!).toTypedArray())
      for (const [parameter, { grad }] of layer.namedParameters()) {
        results[`${name} gradient of ${parameter}`] = bytesOf(grad!.toTypedArray())
      }
      for (const [buffer, value] of Object.entries(layer.stateDict())) {
        results[`${name} ${buffer}`] = bytesOf(value.toTypedArray())
      }
    }
  }
  return results
}
