/** `spikenorm bench`: the benchmark suite, with the arguments behind the name. */

/** In the package the suite is a program of its own beside this one; here it is run from its source. */
const SUITE = import.meta.url.includes('/src/cli/') ? '../../bench/main.js' : './bench.mjs'

/** Gives nothing: the suite goes on after this and sets the exit status itself. */
export async function run(argv: readonly string[]): Promise<undefined> {
  process.argv.splice(2, process.argv.length, ...argv)
  await import(new URL(SUITE, import.meta.url).href)
}
