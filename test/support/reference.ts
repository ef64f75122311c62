// Naive float64 reference of the twelve batch norms and of NeuNorm: plain loops over [T, N, C, S], written from the
// formulas and sharing nothing with the product. It is checked by finite differences in reference.test.ts.
//
//   y = p_t·(w·x̂ + b),  x̂ = (x − μ_r)·i_r,  i_r = 1/√(v_r + eps),  r = row of t (one for all steps, or t itself)
//   S1 = Σ dy, S2 = Σ dy·x̂ per (t, c);  dw = Σ p·S2,  db = Σ p·S1,  dp[t] = Σ_c (w·S2 + b·S1)
//   k1_r = 1/R·Σ_{t in r} p·w·S1, k2_r likewise from S2, both 0 with running statistics
//   dx = i_r·(p·w·dy − k1_r − x̂·k2_r)

export type Family = 'batch' | 'threshold' | 'temporal' | 'throughTime'

export interface NormOptions {
  family: Family
  channels: number
  /** Time steps of the layer; only for TEBN and BNTT. */
  steps?: number
  eps: number
  momentum: number | null
  affine: boolean
  track: boolean
  /** alpha·vTh of tdBN, else 1. */
  initialWeight: number
}

export interface Grid {
  t: number
  n: number
  c: number
  s: number
}

interface Saved {
  x: Float64Array
  grid: Grid
  first: number
  mean: Float64Array
  inverse: Float64Array
  batchStatistics: boolean
  weight: Float64Array | null
  bias: Float64Array | null
  scale: Float64Array | null
}

export const sizeOf = (grid: Grid) => grid.t * grid.n * grid.c * grid.s

export class ReferenceNorm {
  readonly weight: Float64Array | null
  readonly bias: Float64Array | null
  readonly scale: Float64Array | null
  readonly weightGrad: Float64Array | null
  readonly biasGrad: Float64Array | null
  readonly scaleGrad: Float64Array | null
  readonly runningMean: Float64Array
  readonly runningVar: Float64Array
  readonly batches: Float64Array
  training = true
  tracking: boolean
  step = 0
  /** Largest |i·p·w| of the last call: the size of a result per unit of input before its terms cancel. */
  gain = 0
  private readonly saved: Saved[] = []

  constructor(readonly options: NormOptions) {
    const { family, channels, affine, initialWeight, track } = options
    const rows = this.rows()
    const filled = (length: number, value: number) => new Float64Array(length).fill(value)
    const hasBias = affine && family !== 'throughTime'
    const steps = options.steps ?? 0
    this.weight = affine ? filled(rows * channels, initialWeight) : null
    this.bias = hasBias ? filled(channels, 0) : null
    this.scale = family === 'temporal' ? filled(steps, 1) : null
    this.weightGrad = affine ? filled(rows * channels, 0) : null
    this.biasGrad = hasBias ? filled(channels, 0) : null
    this.scaleGrad = family === 'temporal' ? filled(steps, 0) : null
    this.runningMean = filled(rows * channels, 0)
    this.runningVar = filled(rows * channels, 1)
    this.batches = filled(rows, 0)
    this.tracking = track
  }

  /** Rows of weight and statistics: T of them for BNTT. */
  rows(): number {
    return this.options.family === 'throughTime' ? (this.options.steps as number) : 1
  }

  private row(saved: { first: number }, t: number): number {
    return this.options.family === 'throughTime' ? saved.first + t : 0
  }

  forward(x: Float64Array, grid: Grid, record = true): Float64Array {
    const { eps, channels } = this.options
    // Without buffers there is nothing but the batch; with them, eval uses them even when no longer tracking.
    const batchStatistics = this.training || !this.options.track
    const rows = this.rows()
    const saved: Saved = {
      x: x.slice(),
      grid,
      first: this.step,
      mean: new Float64Array(rows * channels),
      inverse: new Float64Array(rows * channels),
      batchStatistics,
      weight: this.weight?.slice() ?? null,
      bias: this.bias?.slice() ?? null,
      scale: this.scale?.slice() ?? null,
    }
    const touched = new Set<number>()
    for (let t = 0; t < grid.t; t++) touched.add(this.row(saved, t))
    for (const row of touched) {
      const members = [...Array(grid.t).keys()].filter((t) => this.row(saved, t) === row)
      if (batchStatistics && this.training && this.tracking && this.options.track) this.batches[row]!++
      for (let c = 0; c < channels; c++) {
        const at = row * channels + c
        if (!batchStatistics) {
          saved.mean[at] = this.runningMean[at]!
          saved.inverse[at] = 1 / Math.sqrt(this.runningVar[at]! + eps)
          continue
        }
        const values = members.length * grid.n * grid.s
        let sum = 0
        for (const t of members) eachOf(grid, t, c, (i) => (sum += x[i]!))
        let mean = sum / values
        // A second pass takes out what rounding left in the first sum.
        let rest = 0
        for (const t of members) eachOf(grid, t, c, (i) => (rest += x[i]! - mean))
        mean += rest / values
        let squares = 0
        for (const t of members) eachOf(grid, t, c, (i) => (squares += (x[i]! - mean) ** 2))
        saved.mean[at] = mean
        saved.inverse[at] = 1 / Math.sqrt(squares / values + eps)
        if (this.training && this.tracking && this.options.track) {
          const factor = this.options.momentum ?? 1 / this.batches[row]!
          this.runningMean[at] = (1 - factor) * this.runningMean[at]! + factor * mean
          this.runningVar[at] = (1 - factor) * this.runningVar[at]! + (factor * squares) / (values - 1)
        }
      }
    }
    const y = new Float64Array(x.length)
    this.gain = 0
    for (let t = 0; t < grid.t; t++) {
      const row = this.row(saved, t)
      for (let c = 0; c < channels; c++) {
        const at = row * channels + c
        const p = saved.scale ? saved.scale[t]! : 1
        const w = saved.weight ? saved.weight[at]! : 1
        const b = saved.bias ? saved.bias[c]! : 0
        this.gain = Math.max(this.gain, Math.abs(saved.inverse[at]! * p * w))
        eachOf(grid, t, c, (i) => {
          y[i] = p * (w * (x[i]! - saved.mean[at]!) * saved.inverse[at]! + b)
        })
      }
    }
    if (this.options.family === 'throughTime') this.step += grid.t
    if (record) this.saved.push(saved)
    return y
  }

  backward(dy: Float64Array): Float64Array {
    const saved = this.saved.pop()
    if (!saved) throw new Error('no forward is pending in the reference')
    const { grid, x } = saved
    const { channels } = this.options
    const k1 = new Float64Array(this.rows() * channels)
    const k2 = new Float64Array(this.rows() * channels)
    const values = (this.options.family === 'throughTime' ? 1 : grid.t) * grid.n * grid.s
    this.gain = 0
    for (let t = 0; t < grid.t; t++) {
      const p = saved.scale ? saved.scale[t]! : 1
      for (let c = 0; c < channels; c++) {
        const at = this.row(saved, t) * channels + c
        const w = saved.weight ? saved.weight[at]! : 1
        const b = saved.bias ? saved.bias[c]! : 0
        let s1 = 0
        let s2 = 0
        eachOf(grid, t, c, (i) => {
          s1 += dy[i]!
          s2 += dy[i]! * (x[i]! - saved.mean[at]!) * saved.inverse[at]!
        })
        if (this.weightGrad) this.weightGrad[at]! += p * s2
        if (this.biasGrad) this.biasGrad[c]! += p * s1
        if (this.scaleGrad) this.scaleGrad[t]! += w * s2 + b * s1
        if (saved.batchStatistics) {
          k1[at]! += (p * w * s1) / values
          k2[at]! += (p * w * s2) / values
        }
        this.gain = Math.max(this.gain, Math.abs(saved.inverse[at]! * p * w))
      }
    }
    const dx = new Float64Array(x.length)
    for (let t = 0; t < grid.t; t++) {
      const p = saved.scale ? saved.scale[t]! : 1
      for (let c = 0; c < channels; c++) {
        const at = this.row(saved, t) * channels + c
        const w = saved.weight ? saved.weight[at]! : 1
        eachOf(grid, t, c, (i) => {
          const normalised = (x[i]! - saved.mean[at]!) * saved.inverse[at]!
          dx[i] = saved.inverse[at]! * (p * w * dy[i]! - k1[at]! - normalised * k2[at]!)
        })
      }
    }
    return dx
  }

  get pending(): number {
    return this.saved.length
  }

  reset(): void {
    this.step = 0
    this.saved.length = 0
  }

  zeroGrad(): void {
    for (const grad of [this.weightGrad, this.biasGrad, this.scaleGrad]) grad?.fill(0)
  }

  /** What stateDict holds, by PyTorch's names. */
  state(): Map<string, Float64Array> {
    return this.named(this.weight, this.bias, this.scale, true)
  }

  grads(): Map<string, Float64Array> {
    return this.named(this.weightGrad, this.biasGrad, this.scaleGrad, false)
  }

  private named(
    weight: Float64Array | null,
    bias: Float64Array | null,
    scale: Float64Array | null,
    buffers: boolean,
  ): Map<string, Float64Array> {
    const { channels, family, track } = this.options
    const named = new Map<string, Float64Array>()
    for (let row = 0; row < this.rows(); row++) {
      const prefix = family === 'throughTime' ? `bn_list.${row}.` : ''
      const part = (all: Float64Array) => all.slice(row * channels, (row + 1) * channels)
      if (weight) named.set(`${prefix}weight`, part(weight))
      if (bias) named.set('bias', bias.slice())
      if (buffers && track) {
        named.set(`${prefix}running_mean`, part(this.runningMean))
        named.set(`${prefix}running_var`, part(this.runningVar))
        named.set(`${prefix}num_batches_tracked`, this.batches.slice(row, row + 1))
      }
    }
    if (scale) named.set('scale', scale.slice())
    return named
  }
}

/** A recorded call of NeuNorm; `carried` is the gradient later calls hand to its last state. */
interface NeuCall {
  grid: Grid
  states: Float64Array[]
  weight: Float64Array
  previous: NeuCall | null
  carried: Float64Array | null
}

/** NeuNorm: s_t = k·s_{t−1} + (1−k)/C²·Σ_c x_t, y_t = x_t − w·s_t. */
export class ReferenceNeuNorm {
  readonly weight: Float64Array
  readonly weightGrad: Float64Array
  /** `[N, H·W]`; null is zero. */
  state: Float64Array | null = null
  /** The recorded call the state came from, if a gradient may flow back to it. */
  private source: NeuCall | null = null
  private calls: NeuCall[] = []

  constructor(
    readonly channels: number,
    readonly pixels: number,
    readonly k: number,
    readonly shared: boolean,
  ) {
    this.weight = new Float64Array((shared ? 1 : channels) * pixels)
    this.weightGrad = new Float64Array(this.weight.length)
  }

  private at(c: number, s: number): number {
    return (this.shared ? 0 : c) * this.pixels + s
  }

  forward(x: Float64Array, grid: Grid, record = true): Float64Array {
    const gain = (1 - this.k) / this.channels ** 2
    const y = new Float64Array(x.length)
    const states: Float64Array[] = []
    let state = this.state ?? new Float64Array(grid.n * grid.s)
    for (let t = 0; t < grid.t; t++) {
      const next = state.map((value) => this.k * value)
      each(grid, t, (i, n, _c, s) => {
        next[n * grid.s + s]! += gain * x[i]!
      })
      each(grid, t, (i, n, c, s) => {
        y[i] = x[i]! - this.weight[this.at(c, s)]! * next[n * grid.s + s]!
      })
      states.push(next)
      state = next
    }
    this.state = state
    const { source: previous } = this
    this.source = record ? { grid, states, weight: this.weight.slice(), previous, carried: null } : null
    if (this.source) this.calls.push(this.source)
    return y
  }

  backward(dy: Float64Array): Float64Array {
    const call = this.calls.pop()
    if (!call) throw new Error('no forward is pending in the reference')
    const { grid, states, weight, previous } = call
    const gain = (1 - this.k) / this.channels ** 2
    const dx = new Float64Array(dy.length)
    let later = call.carried ?? new Float64Array(grid.n * grid.s)
    for (let t = grid.t - 1; t >= 0; t--) {
      const state = states[t] as Float64Array
      const delta = later.slice()
      each(grid, t, (i, n, c, s) => {
        delta[n * grid.s + s]! -= weight[this.at(c, s)]! * dy[i]!
        this.weightGrad[this.at(c, s)]! -= dy[i]! * state[n * grid.s + s]!
      })
      each(grid, t, (i, n, _c, s) => {
        dx[i] = dy[i]! + gain * delta[n * grid.s + s]!
      })
      later = delta.map((value) => this.k * value)
    }
    if (previous) previous.carried = later
    if (this.source === call) this.source = null
    return dx
  }

  get pending(): number {
    return this.calls.length
  }

  /** Keeps the state's value; calls from here on hand no gradient to those before. */
  detach(): void {
    this.source = null
  }

  reset(): void {
    this.state = null
    this.source = null
    this.calls = []
  }

  zeroGrad(): void {
    this.weightGrad.fill(0)
  }
}

function each(grid: Grid, t: number, visit: (i: number, n: number, c: number, s: number) => void): void {
  for (let n = 0; n < grid.n; n++) {
    for (let c = 0; c < grid.c; c++) {
      for (let s = 0; s < grid.s; s++) visit(((t * grid.n + n) * grid.c + c) * grid.s + s, n, c, s)
    }
  }
}

function eachOf(grid: Grid, t: number, c: number, visit: (i: number) => void): void {
  for (let n = 0; n < grid.n; n++) {
    for (let s = 0; s < grid.s; s++) visit(((t * grid.n + n) * grid.c + c) * grid.s + s)
  }
}
