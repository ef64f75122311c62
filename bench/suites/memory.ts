// The bytes of a training step: what forward keeps for backward, and the most that is held on the way.

import { emptyCache, type Module, memoryStats, type Tensor, zeros } from 'spikenorm'
import { randomTensor } from '../cases/data.js'
import { createLayer, LABELS, type LayerName, unsuited } from '../cases/layers.js'
import { bytesOf, parseShape, type Shape } from '../cases/shapes.js'
import type { Context } from '../context.js'
import { Progress } from '../report/progress.js'
import type { MemoryRow } from '../report/results.js'

const SHAPES = ['4,32,64,32x32', '4,128,512,4x4'].map(parseShape)
const QUICK = ['4,8,32,8x8'].map(parseShape)
const DTYPES = ['float32', 'bfloat16'] as const

export async function runMemory(context: Context): Promise<MemoryRow[]> {
  const { options, peer } = context
  const shapes = options.shapes ?? (options.quick ? QUICK : SHAPES)
  const jobs = shapes.flatMap((shape) =>
    DTYPES.filter((dtype) => options.dtypes.includes(dtype)).flatMap((dtype) =>
      options.layers.filter((layer) => !unsuited(layer, shape)).map((layer) => ({ shape, dtype, layer })),
    ),
  )
  const progress = new Progress('memory', jobs.length)
  const rows: MemoryRow[] = []
  for (const { shape, dtype, layer } of jobs) {
    const what = `${LABELS[layer]} ${shape.name} ${dtype}`
    if (context.isOver(what)) continue
    progress.next(what)
    const theirs = await peer?.ask({ do: 'memory', layer, shape: shape.dims, dtype })
    rows.push({
      ...{ layer, shape: shape.name, dtype, tensorBytes: bytesOf(shape.dims, dtype) },
      ...measure(layer, shape, dtype),
      peers: theirs ? { spikingjelly: theirs as MemoryRow['peers'][string] } : {},
    })
  }
  progress.stop()
  return rows
}

function measure(
  name: LayerName,
  shape: Shape,
  dtype: (typeof DTYPES)[number],
): { saved: number; peak: number } {
  using layer = createLayer(name, shape, { dtype, device: 'cpu' })
  using dy = randomTensor(2, shape.dims, dtype, 'cpu')
  const { allocated: without } = memoryStats()
  const x = randomTensor(1, shape.dims, dtype, 'cpu')
  const y = layer.forward(x)
  // The caller lets go of both ends: what is left is there for backward.
  x.dispose()
  y.dispose()
  const saved = memoryStats().allocated - without
  layer.backward(dy).dispose()
  layer.zeroGrad()
  layer.reset()
  return { saved, peak: peakOfStep(layer, shape, dtype, dy) }
}

function peakOfStep(layer: Module, shape: Shape, dtype: (typeof DTYPES)[number], dy: Tensor): number {
  using x = randomTensor(1, shape.dims, dtype, 'cpu')
  const ballast = fillToPeak()
  const { allocated } = memoryStats()
  using _y = layer.forward(x)
  using _dx = layer.backward(dy)
  const { peak } = memoryStats()
  for (const tensor of ballast) tensor.dispose()
  emptyCache()
  return peak - allocated
}

/** The peak of a process never falls, so tensors are held until it is what is held now: what comes then shows in it. */
function fillToPeak(): Tensor[] {
  const ballast: Tensor[] = []
  for (;;) {
    const { allocated, peak } = memoryStats()
    if (peak <= allocated) return ballast
    ballast.push(zeros([peak - allocated], { dtype: 'uint8' }))
  }
}
