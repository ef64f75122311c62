// What is seen while a long run goes on: on a terminal one line that is overwritten, elsewhere a line now and then. It
// goes to standard error, so that the tables can be piped.

const LINE_EVERY_MS = 15_000

export class Progress {
  readonly #started = performance.now()
  #done = 0
  #shownAt = Number.NEGATIVE_INFINITY

  constructor(
    readonly label: string,
    readonly total: number,
  ) {}

  /** Before each of the `total` parts. */
  next(what: string): void {
    const text = `${this.label} ${this.#done + 1}/${this.total} ${what}${this.#left()}`
    this.#done++
    const now = performance.now()
    if (process.stderr.isTTY) {
      process.stderr.write(`\r\x1b[2K${text.slice(0, (process.stderr.columns || 80) - 1)}`)
    } else if (now - this.#shownAt >= LINE_EVERY_MS) {
      this.#shownAt = now
      process.stderr.write(`${text}\n`)
    }
  }

  stop(): void {
    if (process.stderr.isTTY) process.stderr.write('\r\x1b[2K')
  }

  #left(): string {
    if (this.#done === 0) return ''
    const seconds = ((performance.now() - this.#started) / 1000 / this.#done) * (this.total - this.#done)
    return seconds < 5
      ? ''
      : `, about ${seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`} left`
  }
}
