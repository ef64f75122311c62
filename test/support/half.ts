// float16 and bfloat16 by arithmetic on exact powers of two: rounding to nearest, ties to even, straight from
// float64. Independent of the product, whose conversions are checked against this.

export type HalfType = 'float16' | 'bfloat16'

interface Format {
  mantissaBits: number
  exponentBits: number
}

const FORMATS: Record<HalfType, Format> = {
  float16: { mantissaBits: 10, exponentBits: 5 },
  bfloat16: { mantissaBits: 7, exponentBits: 8 },
}

const bias = (format: Format) => 2 ** (format.exponentBits - 1) - 1

export function fromHalfBits(bits: number, type: HalfType): number {
  const format = FORMATS[type]
  const fraction = bits & (2 ** format.mantissaBits - 1)
  const exponent = (bits >> format.mantissaBits) & (2 ** format.exponentBits - 1)
  const sign = bits >> 15 ? -1 : 1
  if (exponent === 2 ** format.exponentBits - 1)
    return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY
  const unit = 2 ** (Math.max(exponent, 1) - bias(format) - format.mantissaBits)
  return sign * unit * (exponent ? fraction + 2 ** format.mantissaBits : fraction)
}

export function toHalfBits(value: number, type: HalfType): number {
  const format = FORMATS[type]
  const infinity = (2 ** format.exponentBits - 1) << format.mantissaBits
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0
  if (Number.isNaN(value)) return infinity | (1 << (format.mantissaBits - 1))
  const size = Math.abs(value)
  const exponent = Math.max(exponentOf(size), 1 - bias(format))
  const units =
    size === Number.POSITIVE_INFINITY ? size : roundToEven(size / 2 ** (exponent - format.mantissaBits))
  // `units` has mantissaBits + 1 bits when normal; adding it to the exponent field lets a carry move up by itself.
  const bits = (exponent + bias(format) - 1) * 2 ** format.mantissaBits + units
  return sign | Math.min(bits, infinity)
}

/** The value a dtype holds for `value`. */
export function roundTo(value: number, dtype: string): number {
  if (dtype === 'float64') return value
  if (dtype === 'float32') return Math.fround(value)
  return fromHalfBits(toHalfBits(value, dtype as HalfType), dtype as HalfType)
}

/** Distance between neighbouring values of the type around `value`. */
export function unitInLastPlace(value: number, type: HalfType): number {
  const format = FORMATS[type]
  return 2 ** (Math.max(exponentOf(Math.abs(value)), 1 - bias(format)) - format.mantissaBits)
}

/** floor(log2(size)), exactly; the least exponent for 0 and for subnormal float64 numbers. */
function exponentOf(size: number): number {
  const view = new DataView(new ArrayBuffer(8))
  view.setFloat64(0, size)
  return ((view.getUint16(0) >> 4) & 0x7ff) - 1023
}

function roundToEven(value: number): number {
  const below = Math.floor(value)
  const rest = value - below
  return rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below
}
