/** Layers whose values are overwritten at once need no initial ones, and must not move the generator behind them. */

let skipped = 0

/** Runs `make`; layers constructed in it keep the values their memory starts with and draw no random numbers. */
export function withoutInitialisation<R>(make: () => R): R {
  skipped++
  try {
    return make()
  } finally {
    skipped--
  }
}

/** Whether a layer under construction is to draw its initial values. */
export function isInitialising(): boolean {
  return skipped === 0
}
