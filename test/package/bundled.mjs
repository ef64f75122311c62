// A program of a user that a bundler puts into one file.
import { BatchNorm1d, nn, SpikenormError, Tensor, tensor } from 'spikenorm'

const y = new BatchNorm1d(1).forward(tensor(new Float32Array([1, 3]), [2, 1]))
const isRight =
  y instanceof Tensor && [-1, 1].every((value, at) => Math.abs(y.toFloat64Array()[at] - value) < 1e-4)
if (!isRight) throw new Error(`wrong numbers: ${y.toFloat64Array()}`)
const names = [Tensor, SpikenormError, nn.Sequential, BatchNorm1d].map(({ name }) => name)
if (names.join() !== 'Tensor,SpikenormError,Sequential,BatchNorm1d') throw new Error(`other names: ${names}`)
