/** What a norm computes in evaluation, as numbers: an affine map per channel, one for all time steps or one for each. */
import type { NormLayer } from '../layers/norm-layer.js'
import type { Tensor } from '../tensor.js'

/** `y[c] = factor[c]·x[c] + offset[c]`. */
export interface AffineMap {
  factor: Float64Array
  offset: Float64Array
}

export interface AffineMaps {
  maps: AffineMap[]
  /** Whether `maps[t]` is that of time step t; otherwise there is one for all. */
  isPerStep: boolean
  /** Whether every call begins at step 0, whatever was called before. */
  isCyclic: boolean
}

/** The maps of a norm that has running statistics, from its state dict: `y = scale[t]·(x̂·weight + bias)`. */
export function affineMaps(norm: NormLayer): AffineMaps {
  const values = new Map<string, Tensor>([...norm.namedParameters(), ...norm.namedBuffers()])
  const read = (name: string) => values.get(name)?.toFloat64Array()
  const one = (prefix: string) =>
    affineMap(norm.eps, {
      mean: read(`${prefix}running_mean`) as Float64Array,
      variance: read(`${prefix}running_var`) as Float64Array,
      weight: read(`${prefix}weight`),
      bias: read(`${prefix}bias`),
    })
  const steps: AffineMap[] = []
  while (values.has(`bn_list.${steps.length}.running_mean`)) steps.push(one(`bn_list.${steps.length}.`))
  if (steps.length > 0) return { maps: steps, isPerStep: true, isCyclic: false }
  const { factor, offset } = one('')
  const scale = read('scale')
  if (!scale) return { maps: [{ factor, offset }], isPerStep: false, isCyclic: false }
  const times = (values: Float64Array, by: number) => values.map((value) => value * by)
  const maps = [...scale].map((by) => ({ factor: times(factor, by), offset: times(offset, by) }))
  return { maps, isPerStep: true, isCyclic: true }
}

interface Statistics {
  mean: Float64Array
  variance: Float64Array
  weight: Float64Array | undefined
  bias: Float64Array | undefined
}

function affineMap(eps: number, { mean, variance, weight, bias }: Statistics): AffineMap {
  const factor = variance.map((value, c) => (weight?.[c] ?? 1) / Math.sqrt(value + eps))
  const offset = mean.map((value, c) => (bias?.[c] ?? 0) - value * (factor[c] as number))
  return { factor, offset }
}
