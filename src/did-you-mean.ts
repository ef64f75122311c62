/** The name that was probably meant, for messages about one that is unknown. */

/** ` Did you mean …?` where one of `known` is close to `given`, else nothing. */
export function didYouMean(given: string, known: readonly string[]): string {
  const near = nearest(given, known)
  return near === undefined ? '' : ` Did you mean ${near}?`
}

/** The name that differs in the fewest letters, if those are few enough to be a slip. */
export function nearest(given: string, known: readonly string[]): string | undefined {
  const wanted = given.toLowerCase()
  const ranked = known
    .map((name) => {
      const candidate = name.toLowerCase()
      // A beginning of a name is meant to be that name, however much is missing.
      const isBeginning = wanted.length > 2 && candidate.startsWith(wanted)
      return { name, distance: isBeginning ? 0 : editDistance(wanted, candidate) }
    })
    .sort((a, b) => a.distance - b.distance)
  const best = ranked[0]
  return best && best.distance <= Math.max(1, Math.floor(wanted.length / 3)) ? best.name : undefined
}

/** Letters to insert, delete, replace or swap with their neighbour (optimal string alignment). */
function editDistance(a: string, b: string): number {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, j) => j)]
  for (let i = 1; i <= a.length; i++) {
    const above = rows[i - 1] as number[]
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const isSame = a[i - 1] === b[j - 1]
      let best = Math.min((above[j] as number) + 1, (row[j - 1] as number) + 1)
      best = Math.min(best, (above[j - 1] as number) + (isSame ? 0 : 1))
      const isSwap = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      if (isSwap) best = Math.min(best, (rows[i - 2]?.[j - 2] as number) + 1)
      row.push(best)
    }
    rows.push(row)
  }
  return rows[a.length]?.[b.length] as number
}
