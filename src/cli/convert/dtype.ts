/** Another dtype for everything but whole numbers. */
import type { DType, Tensor } from '../../index.js'
import type { Dict } from './rename.js'

/** Says through `note` where finite values became infinite, which float16 holds only up to 65504. */
export function convertDtype(dict: Dict, dtype: DType, note: (sentence: string) => void): Dict {
  return Object.fromEntries(
    Object.entries(dict).map(([key, tensor]) => {
      if (tensor.dtype === 'int64' || tensor.dtype === 'uint8') return [key, tensor]
      const converted = tensor.to(dtype)
      const lost = countInfinite(converted) - countInfinite(tensor)
      if (lost > 0)
        note(
          `${key}: ${lost} ${lost === 1 ? 'value is' : 'values are'} too large for ${dtype} and infinite now`,
        )
      return [key, converted]
    }),
  )
}

function countInfinite(tensor: Tensor): number {
  return tensor.toFloat64Array().filter((value) => Math.abs(value) === Number.POSITIVE_INFINITY).length
}
