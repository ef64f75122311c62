// The benchmark suite as a command of the package: from its bundle in dist/, without tsx and without the repository.

import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ROOT, temporaryFolder } from './support.js'

const main = join(ROOT, 'dist', 'cli.mjs')
const version = (JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }).version

function bench(...args: string[]) {
  // Somewhere else, as users are.
  const options = { encoding: 'utf8', cwd: temporaryFolder(), timeout: 120_000 } as const
  return spawnSync(process.execPath, [main, 'bench', ...args], options)
}

describe.skipIf(!existsSync(main))('spikenorm bench (npm run build:ts makes it)', () => {
  it('has the help of the suite, by its own name', () => {
    const { status, stdout } = bench('--help')
    expect(status).toBe(0)
    expect(stdout).toContain('Usage: npx spikenorm bench [options]')
    expect(stdout).not.toContain('npm run bench')
    // Where it says how to get a Python with the peers.
    const manual = /see (\S+README\.md)\)/.exec(stdout)?.[1] as string
    expect(readFileSync(manual, 'utf8')).toContain('pip install torch')
  })

  it('says what is wrong with an option, exit status 2', () => {
    const { status, stderr } = bench('--layer', 'layernorm')
    expect(status).toBe(2)
    expect(stderr).toContain("'layernorm' is not one of")
    expect(stderr).toContain('See npx spikenorm bench --help.')
    expect(bench('--readme', 'x.json').status).toBe(2)
  })

  it('measures: results are right, times are there, and the version stands for the commit', () => {
    const json = join(temporaryFolder(), 'result.json')
    const args = ['--quick', '--layer', 'tdbn', '--dtype', 'float32', '--shape', '2,4,8,6x6']
    const { status, stdout, stderr } = bench(...args, '--device', 'cpu', '--threads', '2', '--json', json)
    expect(status, stderr).toBe(0)
    expect(stdout).toContain('tdBN')
    const result = JSON.parse(readFileSync(json, 'utf8'))
    expect(result.commit).toBe(process.env.SPIKENORM_COMMIT ?? `v${version}`)
    expect(result.command).toMatch(/^npx spikenorm bench --quick/)
    expect(result.suites.layers).toHaveLength(2)
    for (const row of result.suites.layers) {
      expect(row.time.median).toBeGreaterThan(0)
      // The team of two threads that copies has its worker.
      expect(row.copy.time.median).toBeGreaterThan(0)
      expect(row.check.worst).toBeLessThanOrEqual(1)
    }
  })

  it('finds the digits of the training suite', () => {
    const { status, stdout, stderr } = bench(
      '--suite',
      'training',
      '--quick',
      '--layer',
      'batchnorm',
      '--device',
      'cpu',
    )
    expect(status, stderr).toBe(0)
    expect(stdout).toMatch(/batchnorm/i)
  })

  it('carries the Python of its peers', () => {
    const python = (folder: string) => readdirSync(join(ROOT, folder)).filter((name) => name.endsWith('.py'))
    expect(python('dist/bench/peers')).toEqual(python('bench/peers'))
    expect(python('bench/peers')).toContain('server.py')
  })
})
