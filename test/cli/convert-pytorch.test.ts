// Files of torch.save (scripts/make-pytorch-file-fixtures.py) become .safetensors files with the same values.

import { copyFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { loadSafetensors, type Tensor } from '../../src/index.js'
import { expectSameBits } from '../support/compare.js'
import { converted, FIXTURES, spikenorm, temporaryFolder } from './support.js'

const fixture = (name: string) => join(FIXTURES, 'pytorch-files', name)

describe('convert, from files of torch.save', () => {
  it('a state dict becomes a .safetensors file of the same bits', () => {
    const out = join(temporaryFolder(), 'model.safetensors')
    expect(converted(fixture('views.pt'), '-o', out)).toMatchObject({ status: 0, written: out })
    const [got, expected] = [loadSafetensors(out), loadSafetensors(fixture('views.safetensors'))]
    expect(Object.keys(got)).toEqual(Object.keys(expected))
    for (const [key, value] of Object.entries(expected)) expectSameBits(key, got[key] as Tensor, value)
  })

  it('--key takes it out of a checkpoint that holds more', () => {
    const out = join(temporaryFolder(), 'model.safetensors')
    const args = ['--strip-prefix', '1.', '-o', out]
    expect(converted(fixture('checkpoint.pt'), '--key', 'net', ...args).status).toBe(0)
    const nested = converted(fixture('checkpoint.pt'), '--key', 'ema', '--key', 'model', '--check', 'auto')
    expect(nested.status).toBe(0)
    expect(nested.checks).toMatchObject([{ class: 'Conv2d' }, { args: { numFeatures: 3 } }])
    const expected = loadSafetensors(fixture('checkpoint.safetensors'))
    expectSameBits('weight', loadSafetensors(out).weight as Tensor, expected['1.weight'] as Tensor)
  })

  it('without it the keys are named, as they are given here', () => {
    const { status, stderr } = spikenorm(['convert', fixture('checkpoint.pt')])
    expect(status).toBe(1)
    expect(stderr).toContain('state dicts are at --key net or --key ema --key model')
  })

  it('it is the beginning of the file that counts, not its name', () => {
    const path = join(temporaryFolder(), 'model.weights')
    copyFileSync(fixture('small.pt'), path)
    expect(converted(path).tensors.length).toBeGreaterThan(0)
  })

  it('refuses what is no state dict', () => {
    const path = join(temporaryFolder(), 'empty.pt')
    writeFileSync(path, '')
    for (const file of [fixture('malicious.pt'), fixture('whole-net.pt'), fixture('legacy.pt'), path]) {
      const { status, stdout, stderr } = spikenorm(['convert', file])
      expect({ status, stdout }, file).toEqual({ status: 1, stdout: '' })
      expect(stderr.trimEnd().split('\n'), file).toHaveLength(1)
    }
  })

  it('--key is not for .safetensors files', () => {
    const path = join(FIXTURES, 'batch-norm.safetensors')
    const { status, stderr } = spikenorm(['convert', path, '--key', 'net'])
    expect(status).toBe(2)
    expect(stderr).toContain('--key is for files of torch.save')
  })
})
