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
  const prepare = (folders: string[], env: Record<string, string> = {}) => {
    rmSync(log, { force: true })
    const PATH = folders.map((folder) => join(root, folder)).join(delimiter)
    const script = join(root, 'scripts', 'prepare.mjs')
    const { status, stderr } = spawnSync(process.execPath, [script], {
      env: { HOME: root, PATH, ...env },
      encoding: 'utf8',
    })
    expect(status, stderr).toBe(0)
    const asked = existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : []
    return asked.map((line) => line.split(' ').at(line.startsWith('run') ? -1 : 0))
  }
  return { prepare, write }
}

describe.skipIf(process.platform === 'win32')('prepare', () => {
  it('does each step once, and again when what it is made from has changed', () => {
    const { prepare, write } = clone()
    expect(prepare(['tools'])).toEqual(['install', 'build:native', 'build:ts'])
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
})
