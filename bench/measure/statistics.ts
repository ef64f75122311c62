// Medians and quartiles of times.

export interface Timing {
  /** µs */
  median: number
  /** lower and upper quartile, µs */
  q1: number
  q3: number
  samples: number
}

/** Linear between neighbours. `sorted` is ascending and not empty. */
export function quantile(sorted: readonly number[], share: number): number {
  const at = (sorted.length - 1) * share
  const below = sorted[Math.floor(at)] as number
  const above = sorted[Math.ceil(at)] as number
  return below + (above - below) * (at - Math.floor(at))
}

export function summarise(samples: readonly number[]): Timing {
  if (samples.length === 0) throw new RangeError('no samples to summarise')
  const sorted = [...samples].sort((a, b) => a - b)
  return {
    median: quantile(sorted, 0.5),
    q1: quantile(sorted, 0.25),
    q3: quantile(sorted, 0.75),
    samples: sorted.length,
  }
}

/** Bytes and µs to GB/s (10⁹ bytes). */
export const gigabytesPerSecond = (bytes: number, us: number) => bytes / us / 1000
