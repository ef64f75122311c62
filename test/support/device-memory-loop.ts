// A process of cuda-failures.test.ts, on a device with little memory: fills it, runs each layer as long as that runs out
// of memory and frees a piece each time. What ran out must have changed nothing.
import * as spikenorm from '../../src/index.js'

const { nn } = spikenorm
const at = { device: 'cuda' } as const
const layers: [spikenorm.Module, number[]][] = [
  [new spikenorm.BatchNorm2d(16, at), [8, 16, 16, 16]],
  [new spikenorm.BatchNormThroughTime2d(4, 16, { ...at, stepMode: 'm' }), [4, 2, 16, 16, 16]],
  [new spikenorm.TemporalEffectiveBatchNorm2d(4, 16, at), [4, 2, 16, 16, 16]],
  [new spikenorm.NeuNorm(16, 16, 16, at), [8, 16, 16, 16]],
  [new nn.LIFNode({ stepMode: 'm' }), [8, 16, 256]],
  [new nn.Conv2d(16, 16, 3, { ...at, padding: 1 }), [8, 16, 16, 16]],
  [new nn.Linear(256, 256, at), [128, 256]],
  [new nn.MaxPool2d(2), [8, 16, 16, 16]],
  [new nn.AvgPool2d(2), [8, 16, 16, 16]],
  [new nn.Residual(new spikenorm.BatchNorm2d(16, at)), [8, 16, 16, 16]],
]
// Starts cuBLAS, which keeps a workspace.
new nn.Linear(2, 2, at).forward(spikenorm.ones([1, 2], at))

/** Read without memory of the device. */
function stateOf(net: spikenorm.Module): string {
  const read = (tensor: spikenorm.Tensor | null) => (tensor === null ? null : String(tensor.toTypedArray()))
  const values = [...net.namedParameters(), ...net.namedBuffers()].map(([, value]) => read(value))
  const grads = net.parameters().map(({ grad }) => read(grad))
  return JSON.stringify([values, grads, net.modules().map(({ pendingForwards }) => pendingForwards)])
}

const isOutOfMemory = (thrown: unknown) =>
  thrown instanceof spikenorm.SpikenormError && thrown.code === 'ERR_OUT_OF_MEMORY'

for (const [net, shape] of layers) {
  const x = spikenorm.full(shape, 0.5, at)
  const held: spikenorm.Tensor[] = []
  const fill = () => {
    for (let bytes = 1 << 22; bytes >= 1 << 12; ) {
      try {
        held.push(spikenorm.zeros([bytes], { ...at, dtype: 'uint8' }))
      } catch (thrown) {
        if (!isOutOfMemory(thrown)) throw thrown
        bytes >>= 1
      }
    }
  }
  let refused = 0
  const attempt = (call: () => spikenorm.Tensor) => {
    fill()
    const before = stateOf(net)
    for (;;) {
      try {
        return call()
      } catch (thrown) {
        if (!isOutOfMemory(thrown)) throw thrown
        refused++
        if (stateOf(net) !== before) throw new Error(`${net.constructor.name} has changed`)
        if (held.length === 0) throw new Error(`${net.constructor.name} does not fit at all`)
        held.pop()?.dispose()
      }
    }
  }
  const y = attempt(() => net.forward(x))
  const dx = attempt(() => net.backward(y))
  for (const tensor of held.splice(0)) tensor.dispose()
  const allFinite = dx.toFloat64Array().every(Number.isFinite)
  console.log(
    net.constructor.name,
    refused > 0 && allFinite ? 'survived' : `BROKEN: ran out ${refused} times`,
  )
  net.dispose()
}
