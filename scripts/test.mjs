#!/usr/bin/env node
/**
 * `npm test`: everything. `npm test -- --rust` or `npm test -- --ts [vitest arguments]` runs one half.
 */
import { spawnSync } from 'node:child_process'
import { homedir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const [first, ...rest] = process.argv.slice(2)
if (first === '--help' || first === '-h') {
  console.log('Usage: npm test [-- --rust [cargo test arguments] | --ts [vitest arguments]]')
  process.exit(0)
}
if (first !== undefined && first !== '--rust' && first !== '--ts') {
  console.error(`npm test: expected --rust, --ts or nothing, got '${first}'; see npm test -- --help`)
  process.exit(2)
}
process.env.PATH = `${process.env.PATH}${delimiter}${join(homedir(), '.cargo', 'bin')}`

function run(command, args) {
  const options = { cwd: root, stdio: 'inherit', shell: process.platform === 'win32' }
  const result = spawnSync(command, args, options)
  if (result.error || result.status !== 0) process.exit(result.status ?? 1)
}

if (first !== '--ts') run('cargo', ['test', '--quiet', ...rest])
if (first !== '--rust') run('npx', ['vitest', 'run', ...rest])
