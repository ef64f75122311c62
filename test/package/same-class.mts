// A class is the same type, whether it was imported or required.
import { Tensor } from 'spikenorm'
import type { RequiredTensor } from './consumer.cjs'

export const imported: typeof RequiredTensor = Tensor
export const required: Tensor = {} as InstanceType<typeof RequiredTensor>
