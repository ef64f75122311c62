// Bringing a clone up to date, with tools that only write down what they were asked for.

import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'

const SCRIPTS = join(import.meta.dirname, '..', 'scripts')

/** A clone whose tools are there, and what `scripts/prepare.mjs` has npm do in it. */
function clone() {
  const root = mkdtempSync(join(tmpdir(), 'spikenorm-prepare-'))
  onTestFinished(() => rmSync(root, { recursive: true, force: true }))
  for (const name of ['prepare.mjs', 'setup-cuda.mjs'])
    cpSync(join(SCRIPTS, name), join(root, 'scripts', name))
  const write = (path: string, text = '', mode = 0o644) => {
    mkdirSync(join(root, path, '..'), { recursive: true })
    writeFileSync(join(root, path), text, { mode })
  }
  for (const made of ['node_modules/.bin/tsc', 'spikenorm.node', 'dist/index.mjs']) write(made)
  const log = join(root, 'log')
  write('tools/npm', `#!/bin/sh\necho "$*" >> '${log}'\n`, 0o755)
  for (const tool of ['tools/cargo', 'tools/cc', 'cuda/nvcc'])
    write(tool, '#!/bin/sh\necho "release 13.0"\n', 0o755)
  const start = (folders: string[], env: Record<string, string> = {}, args: string[] = []) => {
    rmSync(log, { force: true })
    const PATH = folders.map((folder) => join(root, folder)).join(delimiter)
    const script = join(root, 'scripts', 'prepare.mjs')
    return spawnSync(process.execPath, [script, ...args], {
      env: { HOME: root, PATH, ...env },
      encoding: 'utf8',
    })
  }
  const prepare = (...given: Parameters<typeof start>) => {
    const { status, stderr } = start(...given)
    expect(status, stderr).toBe(0)
    const asked = existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : []
    return asked.map((line) => line.split(' ').at(line.startsWith('run') ? -1 : 0))
  }
  return { root, start, prepare, write }
}

describe.skipIf(process.platform === 'win32')('prepare', () => {
  it('does each step once, and again when what it is made from has changed', () => {
    const { prepare, write } = clone()
    expect(prepare(['tools'])).toEqual(['ci', 'build:native', 'build:ts'])
    expect(prepare(['tools'])).toEqual([])
    write('crates/core/src/lib.rs', '// other')
    expect(prepare(['tools'])).toEqual(['build:native'])
    write('src/index.ts', '// other')
    expect(prepare(['tools'])).toEqual(['build:ts'])
  })

  it('builds an addon without kernels again when there is an nvcc, and when the variables of the build change', () => {
    const { prepare } = clone()
    prepare(['tools'])
    expect(prepare(['tools', 'cuda'])).toEqual(['build:native'])
    expect(prepare(['tools', 'cuda'])).toEqual([])
    expect(prepare(['tools', 'cuda'], { SPIKENORM_CUDA_ARCHS: '80 90' })).toEqual(['build:native'])
    expect(prepare(['tools', 'cuda'], { SPIKENORM_NO_CUDA: '1' })).toEqual(['build:native'])
  })

  it('as a dependency it builds, with the dependencies that npm has installed; for a developer it does nothing', () => {
    const { root, prepare } = clone()
    const startedIn = (INIT_CWD: string) => prepare(['tools'], { INIT_CWD }, ['--dependency'])
    expect(startedIn(root)).toEqual([])
    expect(startedIn(join(root, 'scripts'))).toEqual([])
    expect(startedIn(tmpdir())).toEqual(['build:native', 'build:ts'])
  })

  it('as a dependency it says what is needed where Rust is missing', () => {
    const { root, start } = clone()
    rmSync(join(root, 'tools', 'cargo'))
    const { status, stderr } = start(['tools'], { INIT_CWD: tmpdir() }, ['--dependency'])
    expect(status).toBe(1)
    expect(stderr).toContain('install Rust 1.89 or later from https://rustup.rs')
  })
})
