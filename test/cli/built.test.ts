// The command as the package has it: bundled, run by Node alone, installed without and with a binary.

import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { FIXTURES, ROOT, temporaryFolder } from './support.js'

function run(main: string, ...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], { encoding: 'utf8' })
  return { status, stdout, stderr }
}

/** The package in a node_modules of its own, without a binary. */
function installed(): string {
  const folder = join(temporaryFolder(), 'node_modules', 'spikenorm')
  mkdirSync(folder, { recursive: true })
  cpSync(join(ROOT, 'dist'), join(folder, 'dist'), { recursive: true })
  cpSync(join(ROOT, 'package.json'), join(folder, 'package.json'))
  return join(folder, 'dist', 'cli.mjs')
}

const main = join(ROOT, 'dist', 'cli.mjs')

describe.skipIf(!existsSync(main))('the built command (npm run build:ts makes it)', () => {
  it('without a binary: doctor says which is missing, the others do in one line, help is there', () => {
    const command = installed()
    const doctor = run(command, 'doctor', '--json')
    expect(doctor).toMatchObject({ status: 1, stderr: '' })
    expect(JSON.parse(doctor.stdout)).toMatchObject({
      ok: false,
      addon: null,
      findings: [{ about: 'addon', reason: expect.stringContaining('is not installed') }],
    })
    const convert = run(command, 'convert', 'x.safetensors')
    expect(convert).toMatchObject({ status: 1, stdout: '' })
    expect(convert.stderr).toMatch(/^spikenorm convert: its native binary for .* is not installed; .*\n$/)
    expect(run(command, '--help')).toMatchObject({ status: 0, stderr: '' })
  })

  it('with it: doctor is content', () => {
    const { status, stdout } = run(main, 'doctor', '--json')
    expect(JSON.parse(stdout)).toMatchObject({ cpu: { selfTest: { passed: true } } })
    expect(status).toBe(0)
  })

  it('knows errors of the library when it meets them', () => {
    const { status, stderr } = run(main, 'convert', join(FIXTURES, 'pytorch-files', 'checkpoint.pt'))
    expect(status).toBe(1)
    expect(stderr).toMatch(/^spikenorm convert: .*--key net.*\n$/)
    const bench = run(main, 'bench', '--device', 'cuda:99')
    expect(bench.status).toBe(2)
    expect(bench.stderr).toMatch(/^bench: --device cuda:99: (tensor: )?device: /)
  })
})
