#!/usr/bin/env node
/**
 * `npm run build:native [-- arguments of napi build]`: the addon as it is published, and the declarations of its exports.
 *
 * Paths of this machine, which panic messages would name, are replaced; scripts/package/paths.mjs checks that none is left.
 */
import { spawnSync } from 'node:child_process'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const WINDOWS = process.platform === 'win32'
const { CARGO_HOME, RUSTUP_HOME, RUSTFLAGS = '' } = process.env

/** The compiler takes the last that fits. */
const REPLACED = {
  [homedir()]: '/home',
  [RUSTUP_HOME ?? join(homedir(), '.rustup')]: '/rustup',
  [CARGO_HOME ?? join(homedir(), '.cargo')]: '/cargo',
  [resolve(root)]: '/spikenorm',
}

// napi adds to RUSTFLAGS, which is cut at spaces: a path with one cannot be replaced.
const remaps = Object.entries(REPLACED)
  .filter(([path]) => !path.includes(' '))
  .map(([path, name]) => `--remap-path-prefix=${path}=${name}`)
const args = ['build', '--platform', '--release', '--strip', '--no-js', '--dts', 'index.d.ts']
const napi = join(root, 'node_modules', '.bin', WINDOWS ? 'napi.cmd' : 'napi')
const { status, error } = spawnSync(napi, [...args, ...process.argv.slice(2), '--', '--locked'], {
  cwd: root,
  stdio: 'inherit',
  shell: WINDOWS,
  env: { ...process.env, RUSTFLAGS: [RUSTFLAGS, ...remaps].join(' ').trim() },
})
if (error) console.error(`build-native: ${error.message}; npm install brings napi`)
process.exit(status ?? 1)
