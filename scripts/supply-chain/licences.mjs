#!/usr/bin/env node
/**
 * `npm run licences`: writes THIRD-PARTY-LICENSES.txt, which the packages of binaries carry, by cargo-about.
 * `-- --check` compares its crates and versions with what Cargo.lock links, and needs cargo alone.
 */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))
const here = fileURLToPath(new URL('.', import.meta.url))
const notices = join(root, 'THIRD-PARTY-LICENSES.txt')
const tools = join(root, '.cache', 'cargo-about')
const CARGO_ABOUT = '0.9.3'

function fail(sentence) {
  console.error(`licences: ${sentence}`)
  process.exit(1)
}

function run(command, args, options = {}) {
  const result = spawnSync(command, args, { cwd: root, encoding: 'utf8', ...options })
  if (result.error || result.status !== 0)
    fail(`${command} ${args[0]} failed: ${result.error?.message ?? result.stderr}`)
  return result.stdout
}

/** The targets of about.toml, each on a line of its own. */
function targets() {
  const config = readFileSync(join(here, 'about.toml'), 'utf8')
  return config.match(/^targets = \[([^\]]*)\]/m)[1].match(/[\w-]+/g)
}

/** Crates that a build for one of the targets has, as `name version`. */
function crates(targets) {
  const found = new Set()
  for (const target of targets) {
    const args = ['tree', '--locked', '--workspace', '--edges', 'normal', '--prefix', 'none']
    for (const line of run('cargo', [...args, '--format', '{p}', '--target', target]).split('\n')) {
      // Crates of this project have their folder behind the version.
      const [, name, version] = line.match(/^(\S+) v(\S+)(?: \(proc-macro\))?(?: \(\*\))?$/) ?? []
      if (name) found.add(`${name} ${version}`)
    }
  }
  return found
}

function check() {
  const named = new Set(
    [...readFileSync(notices, 'utf8').matchAll(/^(\S+ \d\S+): /gm)].map(([, crate]) => crate),
  )
  const missing = [...crates(targets())].filter((crate) => !named.has(crate))
  // cargo-about counts some that only other targets have.
  const possible = crates(['all'])
  const surplus = [...named].filter((crate) => !possible.has(crate))
  if (named.size > 0 && missing.length + surplus.length === 0)
    return console.log(`THIRD-PARTY-LICENSES.txt names the ${named.size} crates of the binary`)
  const list = (names) => names.join(', ') || 'none'
  fail(
    `THIRD-PARTY-LICENSES.txt is out of date (missing: ${list(missing)}; not linked: ${list(surplus)}); run npm run licences`,
  )
}

function write() {
  process.env.PATH = `${join(tools, 'bin')}${delimiter}${process.env.PATH}`
  if (spawnSync('cargo-about', ['--version']).status !== 0) {
    console.error(`licences: building cargo-about ${CARGO_ABOUT}, which takes minutes …`)
    const args = ['install', '--locked', '--version', CARGO_ABOUT, '--features', 'cli', '--root', tools]
    run('cargo', [...args, 'cargo-about'], { stdio: 'inherit' })
  }
  const config = ['--config', join(here, 'about.toml'), '--offline', '--locked', '--fail', '--workspace']
  run('cargo-about', ['generate', ...config, '--output-file', notices, join(here, 'notices.hbs')])
  check()
}

if (process.argv.includes('--check')) check()
else write()
