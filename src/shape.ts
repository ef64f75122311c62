/** Shapes that users give. */
import { SpikenormError } from './errors.js'
import { formatValue } from './format-value.js'

/** As many as PyTorch allows. */
const MOST_AXES = 64

/**
 * A copy of a shape, an array or typed array of whole numbers; throws `ERR_SHAPE` otherwise. N-API would cut 1.5 down to 1
 * and read NaN as 0.
 */
export function extentsOf(where: string, shape: unknown): number[] {
  const refuse = (problem: string) => new SpikenormError('ERR_SHAPE', `${where}: shape: ${problem}`)
  const isTyped = ArrayBuffer.isView(shape) && 'length' in shape
  if (!Array.isArray(shape) && !isTyped) {
    const example = Number.isSafeInteger(shape) ? `[${shape}]` : '[2, 3]'
    throw refuse(`expected whole numbers in an array, such as ${example}, got ${formatValue(shape)}`)
  }
  const { length } = shape as ArrayLike<unknown>
  if (length > MOST_AXES) throw refuse(`expected at most ${MOST_AXES} axes, got ${length}`)
  const extents = Array.from(shape as ArrayLike<unknown>)
  if (!extents.every(Number.isSafeInteger))
    throw refuse(`expected whole numbers, got ${formatValue(extents)}`)
  return extents as number[]
}

/** The shape with the extent -1, if there is one, worked out from the number of elements. */
export function inferExtent(shape: readonly number[], size: number): number[] {
  const inferred = shape.indexOf(-1)
  if (inferred < 0) return [...shape]
  const rest = shape.reduce((product, extent, axis) => (axis === inferred ? product : product * extent), 1)
  if (rest <= 0 || size % rest !== 0) {
    throw new SpikenormError('ERR_SHAPE', `reshape: ${size} elements do not fit [${shape.join(', ')}]`)
  }
  return shape.map((extent, axis) => (axis === inferred ? size / rest : extent))
}
