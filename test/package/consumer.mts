// Compiles for a user whose code is ES modules: types are there, strict, and those of the values.
import {
  BatchNorm2d,
  type DType,
  loadSafetensors,
  type Module,
  nn,
  optim,
  SpikenormError,
  type Tensor,
  tensor,
} from 'spikenorm'

const dtype: DType = 'float32'
const norm: Module = new BatchNorm2d(4, { stepMode: 'm', momentum: null, dtype })
export const y: Tensor = norm.forward(tensor(new Float32Array(4), [1, 1, 4, 1, 1]))
export const net: Module = new nn.Sequential(norm, new nn.LIFNode({ stepMode: 'm', vReset: null }))
export const adam: optim.Adam = new optim.Adam(net.parameters(), { lr: 1e-3 })
export const state: Record<string, Tensor> = loadSafetensors('net.safetensors')
export const codeOf = (error: unknown) => (error instanceof SpikenormError ? error.code : undefined)
// @ts-expect-error there is no such dtype
export const wrong: DType = 'float128'
// @ts-expect-error a layer has channels
new BatchNorm2d()
