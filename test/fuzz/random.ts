// Pseudo-random choices from a seed: the same seed, the same input.

/** Numbers that lie at the edges of what formats and languages can count. */
const EDGES = [
  ...[0, 1, 2, 3, 7, 8, 16, 64, 127, 128, 255, 256, 1000, 65535, 65536, 99_999_999, 100_000_001],
  ...[2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 40, 2 ** 53 - 1, 2 ** 53],
]

export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** A number in [0, 1). mulberry32. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = this.#state
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  below(end: number): number {
    return Math.floor(this.next() * end)
  }

  chance(probability: number): boolean {
    return this.next() < probability
  }

  pick<V>(values: readonly V[]): V {
    return values[this.below(values.length)] as V
  }

  times<V>(most: number, make: (at: number) => V): V[] {
    return Array.from({ length: this.below(most + 1) }, (_, at) => make(at))
  }

  /** Mostly small, at times at an edge. */
  count(): number {
    return this.chance(0.8) ? this.below(6) : this.pick(EDGES)
  }

  bytes(length: number): Buffer {
    return Buffer.from(Array.from({ length }, () => this.below(256)))
  }

  text(): string {
    if (this.chance(0.6)) return this.pick(['a', 'w', 'weight', 'bn.bias', 'data.pkl', 'data/0', '0', '1'])
    const odd = [
      '',
      '__proto__',
      '__metadata__',
      'constructor',
      '\0',
      '\n',
      '\u001b[31m',
      '"',
      '\\',
      '\ud800',
      '😀',
    ]
    return this.pick([...odd, 'x'.repeat(this.below(300))])
  }
}
