// The command itself: help, version, and what is said of a slip of the pen.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { short, table } from '../../src/cli/text.js'
import { didYouMean, nearest } from '../../src/did-you-mean.js'
import { FIXTURES, ROOT, spikenorm } from './support.js'

const COMMANDS = ['doctor', 'convert', 'bench']

describe('the command', () => {
  it('lists every command with --help, -h and help, and with nothing, which is a mistake', () => {
    for (const args of [['--help'], ['-h'], ['help'], []]) {
      const { status, stdout } = spikenorm(args)
      expect(status).toBe(args.length === 0 ? 2 : 0)
      for (const command of COMMANDS) expect(stdout).toMatch(new RegExp(`^ {2}${command} +\\w`, 'm'))
    }
  })

  it("prints the package's version", () => {
    const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }
    expect(spikenorm(['--version'])).toEqual({ status: 0, stdout: `${version}\n`, stderr: '' })
  })

  it('has help for each command, and help NAME is NAME --help', () => {
    for (const command of COMMANDS) {
      const { status, stdout } = spikenorm([command, '--help'])
      expect(status, command).toBe(0)
      expect(stdout, command).toMatch(/^Usage: (npx spikenorm|npm run) /m)
    }
    expect(spikenorm(['help', 'doctor']).stdout).toBe(spikenorm(['doctor', '--help']).stdout)
  })

  it('names the nearest command and the nearest option, with exit status 2', () => {
    const command = spikenorm(['docter'])
    expect(command.status).toBe(2)
    expect(command.stderr).toContain('unknown command docter. Did you mean doctor?')
    const option = spikenorm(['doctor', '--jsno'])
    expect(option.status).toBe(2)
    expect(option.stderr).toContain('unknown option --jsno. Did you mean --json?')
    expect(option.stderr).toContain('npx spikenorm doctor --help')
    const top = spikenorm(['--vresion'])
    expect(top.status).toBe(2)
    expect(top.stderr).toContain('Did you mean --version?')
  })

  it('suggests nothing for what is like no name', () => {
    const { status, stderr } = spikenorm(['toString'])
    expect(status).toBe(2)
    expect(stderr).toBe('spikenorm: unknown command toString.\nSee npx spikenorm --help.\n')
  })

  it('says what an option lacks or has too much', () => {
    expect(spikenorm(['convert', 'x.safetensors', '--dtype'])).toMatchObject({
      status: 2,
      stderr: expect.stringContaining('--dtype'),
    })
    expect(spikenorm(['doctor', '--json=yes']).status).toBe(2)
    const extra = spikenorm(['doctor', 'now'])
    expect(extra.status).toBe(2)
    expect(extra.stderr).toContain("takes no arguments, got 'now'")
  })

  it('writes no colour into a pipe', () => {
    const { stdout } = spikenorm(['convert', join(FIXTURES, 'neu-norm.safetensors')])
    expect(stdout).not.toContain('\x1b')
  })
})

describe('names', () => {
  it('are near with one letter missing, wrong, added or swapped', () => {
    const known = ['doctor', 'convert', 'bench']
    expect(['dctor', 'doctur', 'doctorr', 'dcotor', 'DOCTOR'].map((name) => nearest(name, known))).toEqual(
      Array(5).fill('doctor'),
    )
  })

  it('are near when they are a beginning', () => {
    expect(nearest('conv', ['doctor', 'convert'])).toBe('convert')
    expect(nearest('--require', ['--json', '--require-cuda'])).toBe('--require-cuda')
  })

  it('are not near when more than a third is different', () => {
    expect(nearest('train', ['doctor', 'convert', 'bench'])).toBeUndefined()
    expect(didYouMean('train', ['doctor'])).toBe('')
  })
})

describe('numbers and tables', () => {
  it('show four significant digits and no idle zeros', () => {
    expect([0, 1, 0.125, 1234567, 1e-9, -2.50001, 100, Number.NaN].map(short)).toEqual([
      '0',
      '1',
      '0.125',
      '1.235e+6',
      '1e-9',
      '-2.5',
      '100',
      'NaN',
    ])
  })

  it('align their columns', () => {
    expect(
      table(
        [
          ['key', 'n'],
          ['a', '100'],
          ['weight', '7'],
        ],
        [1],
      ),
    ).toBe('key       n\na       100\nweight    7')
  })
})
