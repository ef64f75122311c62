// The shapes that are measured. Every one is [T, N, C, …space], time steps first.

import type { DType } from 'spikenorm'

export interface Shape {
  /** As it is written on the command line and in results: `4,32,64,32x32`. */
  name: string
  /** [T, N, C, …space] */
  dims: readonly number[]
  /** Axes after the channel: 0 and 1 for the 1d layers, 2, 3. */
  spatial: 0 | 1 | 2 | 3
}

/** What deep spiking nets feed their norms: CIFAR and ImageNet stages, DVS at T = 10, a dense layer, a video. */
const COMMON = [
  '4,32,64,32x32',
  '4,32,256,8x8',
  '8,16,128,16x16',
  '4,8,64,56x56',
  '10,32,256,16x16',
  '4,128,512,4x4',
  '4,256,512',
  '4,4,32,8x14x14',
]

/** What fills a GPU. */
const LARGE = ['4,32,64,56x56', '4,128,128,32x32', '4,64,128,28x28', '4,32,256,14x14', '4,32,512,7x7']

/** Small enough that a run over everything ends within seconds. */
const QUICK = ['4,8,32,8x8', '4,64,128', '4,2,8,4x7x7']

export function parseShape(text: string): Shape {
  const match = /^(\d+),(\d+),(\d+)(?:,(\d+(?:x\d+){0,2}))?$/.exec(text.trim())
  const space = match?.[4]?.split('x').map(Number) ?? []
  const dims = match ? [...match.slice(1, 4).map(Number), ...space] : []
  if (!match || dims.some((extent) => extent < 1)) {
    throw new RangeError(`'${text}' is not a shape T,N,C,L or T,N,C,HxW or T,N,C,DxHxW`)
  }
  return { name: text.trim(), dims, spatial: space.length as Shape['spatial'] }
}

export function shapesOf(device: string, quick: boolean): Shape[] {
  if (quick) return QUICK.map(parseShape)
  // On a GPU the large ones first: they say most where time is short.
  return (device === 'cpu' ? COMMON : [...LARGE, ...COMMON]).map(parseShape)
}

export const sizeOf = (dims: readonly number[]) => dims.reduce((product, extent) => product * extent, 1)

const BYTES: Record<string, number> = { float64: 8, float32: 4, float16: 2, bfloat16: 2 }

/** U: the bytes of one pass over a tensor. */
export function bytesOf(dims: readonly number[], dtype: DType): number {
  return sizeOf(dims) * (BYTES[dtype] as number)
}
