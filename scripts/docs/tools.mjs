/**
 * What the documentation tools share. TypeDoc and API Extractor need a TypeScript with a JavaScript API, which the
 * compiler that builds the package no longer has; they live in a folder of their own with one, installed on first use.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { LIBRARIES } from '../package/entries.mjs'

export const root = fileURLToPath(new URL('../..', import.meta.url))
const here = fileURLToPath(new URL('.', import.meta.url))
const isWindows = process.platform === 'win32'

/** Ends the process with a sentence that says what to do. */
export function fail(sentence) {
  console.error(`spikenorm: ${sentence}`)
  process.exit(1)
}

/** Installs the tools unless they are there in the versions of the lockfile. */
export function installTools() {
  const lock = createHash('sha256')
    .update(readFileSync(join(here, 'package-lock.json')))
    .digest('hex')
  const stamp = join(here, 'node_modules', '.installed')
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === lock) return
  console.error('spikenorm: installing the documentation tools …')
  const options = { cwd: here, stdio: ['ignore', 'ignore', 'inherit'], shell: isWindows }
  const { status, error } = spawnSync(
    'npm',
    ['install', '--no-save', '--no-audit', '--no-fund', '--loglevel=error'],
    options,
  )
  if (error || status !== 0) fail('npm install failed in scripts/docs; is the npm registry reachable?')
  writeFileSync(stamp, lock)
}

/** The modules users can import: `{ name, source }`, as in `{ name: 'spikenorm-tfjs', source: 'src/tfjs/index.ts' }`. */
export const entryPoints = Object.entries(LIBRARIES).map(([entry, source]) => ({
  name: entry === 'index' ? 'spikenorm' : `spikenorm-${entry.replaceAll('/', '-')}`,
  source,
}))
