// Inspecting, checking, renaming and converting files, and what is refused.

import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { findLayers } from '../../src/cli/convert/layers.js'
import { rename } from '../../src/cli/convert/rename.js'
import {
  BatchNorm1d,
  BatchNorm2d,
  BatchNormThroughTime2d,
  loadSafetensors,
  loadSafetensorsMetadata,
  NeuNorm,
  nn,
  saveSafetensors,
  TemporalEffectiveBatchNorm2d,
  ThresholdDependentBatchNorm3d,
  tensor,
} from '../../src/index.js'
import { converted, FIXTURES, fileOf, spikenorm, temporaryFolder } from './support.js'

const fixture = (name: string) => join(FIXTURES, `${name}.safetensors`)

const keysOf = (path: string) => Object.keys(loadSafetensors(path))

describe('convert, inspecting', () => {
  it('lists key, dtype, shape, number of values and their range', () => {
    const { status, tensors } = converted(fixture('batch-norm'))
    expect(status).toBe(0)
    // make-fixtures.py: the k-th key in order holds k + i / 8.
    expect(tensors).toEqual([
      { key: 'bias', dtype: 'float32', shape: [3], size: 3, min: 0, mean: 0.125, max: 0.25, nan: 0, inf: 0 },
      {
        key: 'num_batches_tracked',
        dtype: 'int64',
        shape: [],
        size: 1,
        min: 1,
        mean: 1,
        max: 1,
        nan: 0,
        inf: 0,
      },
      {
        key: 'running_mean',
        dtype: 'float32',
        shape: [3],
        size: 3,
        min: 2,
        mean: 2.125,
        max: 2.25,
        nan: 0,
        inf: 0,
      },
      {
        key: 'running_var',
        dtype: 'float32',
        shape: [3],
        size: 3,
        min: 3,
        mean: 3.125,
        max: 3.25,
        nan: 0,
        inf: 0,
      },
      {
        key: 'weight',
        dtype: 'float32',
        shape: [3],
        size: 3,
        min: 4,
        mean: 4.125,
        max: 4.25,
        nan: 0,
        inf: 0,
      },
    ])
  })

  it('shows the same as a table, with the layer that the keys tell of', () => {
    const { status, stdout } = spikenorm(['convert', fixture('temporal-effective')])
    expect(status).toBe(0)
    expect(stdout).toMatch(/^key +dtype +shape +values +min +mean +max$/m)
    expect(stdout).toMatch(/^scale +float32 +\[4\] +4 +4 +4\.188 +4\.375$/m)
    expect(stdout).toMatch(/^6 tensors, 17 values, 72 B$/m)
    expect(stdout).toMatch(/^root: TemporalEffectiveBatchNorm1d\/2d\/3d$/m)
  })

  it('reads every dtype, and tensors of one and of no value', () => {
    const { tensors } = converted(fixture('dtypes'))
    const of = (key: string) => tensors.find((each: { key: string }) => each.key === key)
    for (const dtype of ['float64', 'float32', 'float16', 'bfloat16', 'int64', 'uint8'])
      expect(of(dtype)).toMatchObject({ dtype, shape: [2, 3] })
    expect(of('empty')).toMatchObject({ size: 0, min: null, mean: null, max: null })
    expect(of('scalar')).toMatchObject({ shape: [], size: 1 })
  })

  it('counts NaN and infinities, which the range leaves out', () => {
    const data = [1, Number.NaN, Number.NEGATIVE_INFINITY, 4, Number.POSITIVE_INFINITY, Number.NaN]
    const path = fileOf({ a: tensor(data, [6]), b: tensor([Number.NaN], [1]) })
    const { tensors } = converted(path)
    expect(tensors[0]).toMatchObject({ min: 1, mean: 2.5, max: 4, nan: 2, inf: 2 })
    expect(tensors[1]).toMatchObject({ min: null, mean: null, max: null, nan: 1, inf: 0 })
    const { stdout } = spikenorm(['convert', path])
    expect(stdout).toMatch(/max +NaN +Inf$/m)
    expect(stdout).toMatch(/^a .* 4 +2 +2$/m)
  })

  it('a file that is not there, or no checkpoint, is an error in a sentence', () => {
    const missing = spikenorm(['convert', 'no-such.safetensors'])
    expect(missing).toMatchObject({ status: 1, stdout: '' })
    expect(missing.stderr).toMatch(/^spikenorm convert: .*no-such\.safetensors.*\n$/)
    const path = join(temporaryFolder(), 'text.safetensors')
    writeFileSync(path, 'hello')
    const wrong = spikenorm(['convert', path])
    expect(wrong.status).toBe(1)
    expect(wrong.stderr).toContain('not a valid safetensors file')
    expect(spikenorm(['convert']).status).toBe(2)
    expect(spikenorm(['convert', 'a', 'b']).stderr).toContain('takes one file')
  })
})

describe('convert, renaming and writing', () => {
  it('strips prefixes and renames by regular expression, values untouched', () => {
    const out = join(temporaryFolder(), 'out.safetensors')
    const { status, written, notes } = converted(
      fixture('pytorch-net'),
      ...['--select', 'net.', '--rename', '^(\\d+)\\.=layer$1.', '--rename', 'layer1=bn', '-o', out],
    )
    expect({ status, written, notes }).toEqual({ status: 0, written: out, notes: [] })
    expect(keysOf(out)).toEqual(
      ['bn.bias', 'bn.num_batches_tracked', 'bn.running_mean', 'bn.running_var', 'bn.weight'].concat([
        ...['layer0.weight', 'layer4.bias', 'layer4.weight'],
      ]),
    )
    const [given, got] = [loadSafetensors(fixture('pytorch-net')), loadSafetensors(out)]
    expect(got['bn.running_var']?.toTypedArray()).toEqual(given['net.1.running_var']?.toTypedArray())
    expect(got['layer4.weight']?.shape).toEqual([5, 36])
    const stripped = join(temporaryFolder(), 'stripped.safetensors')
    converted(out, '--strip-prefix', 'bn.', '--output', stripped)
    expect(keysOf(stripped)).toContain('running_mean')
  })

  it('says when a prefix or a pattern changes nothing', () => {
    const { status, notes, stderr } = converted(
      fixture('batch-norm'),
      '--strip-prefix',
      'module.',
      '--rename',
      'x=y',
    )
    expect(status).toBe(0)
    expect(notes).toEqual(['--strip-prefix module. changed no key', "--rename 'x=y' changed no key"])
    expect(stderr).toContain('changed no key')
  })

  it('never gives two tensors one name, nor none', () => {
    const two = spikenorm(['convert', fixture('batch-norm'), '--rename', 'running_(mean|var)=running'])
    expect(two.status).toBe(1)
    expect(two.stderr).toContain("'running_mean' and 'running_var' would both be named 'running'")
    expect(spikenorm(['convert', fixture('batch-norm'), '--rename', '^bias$=']).stderr).toContain(
      "'bias' would be left without a name",
    )
  })

  it('names can be exchanged: all are renamed before any is compared', () => {
    const dict = { a: tensor([1], [1]), b: tensor([2], [1]) }
    const renamings = [
      { pattern: /^a$/g, replacement: 't' },
      { pattern: /^b$/g, replacement: 'a' },
      { pattern: /^t$/g, replacement: 'b' },
    ]
    const got = rename(dict, { strip: [], renamings }, () => {})
    expect([got.a?.item(), got.b?.item()]).toEqual([2, 1])
  })

  it('refuses to write over a file without --force, before reading anything', () => {
    const out = join(temporaryFolder(), 'kept.safetensors')
    writeFileSync(out, 'precious')
    const refused = spikenorm(['convert', 'no-such.safetensors', '-o', out])
    expect(refused.status).toBe(1)
    expect(refused.stderr).toContain('is there already; --force writes over it')
    expect(readFileSync(out, 'utf8')).toBe('precious')
    expect(converted(fixture('batch-norm'), '-o', out, '--force')).toMatchObject({ status: 0, written: out })
    expect(keysOf(out)).toContain('running_var')
  })

  it('keeps the metadata of a .safetensors file', () => {
    const [path, out] = [join(temporaryFolder(), 'given'), join(temporaryFolder(), 'out')]
    saveSafetensors(path, { a: tensor([1], [1]) }, { metadata: { epoch: '3', format: 'np' } })
    converted(path, '--rename', 'a=b', '-o', out)
    expect(loadSafetensorsMetadata(out)).toEqual({ epoch: '3', format: 'np' })
  })

  it('a file can be converted in place with --force', () => {
    const path = fileOf({ 'module.w': tensor([1, 2], [2]) })
    converted(path, '--strip-prefix', 'module.', '-o', path, '--force')
    expect(keysOf(path)).toEqual(['w'])
  })

  it('refuses patterns that are none, and renamings without a replacement', () => {
    for (const renaming of ['(=x', 'x', '=x']) {
      const { status, stderr } = spikenorm(['convert', fixture('batch-norm'), '--rename', renaming])
      expect(status, renaming).toBe(2)
      expect(stderr).toContain('--rename')
    }
  })
})

describe('convert prints names out of files', () => {
  const evil = '\u001b[31mred\u001b]0;title\u0007\u009b2J\r\nfake  float32\u202e'

  it('without what a terminal obeys, on both outputs and in every message', () => {
    const dict = Object.fromEntries(
      Object.entries(new BatchNorm2d(2).stateDict()).map(([name, value]) => [`${evil}.${name}`, value]),
    )
    delete dict[`${evil}.bias`]
    const huge = tensor([1e6], [1])
    const path = fileOf({ ...dict, [`${evil}b`]: huge, [`${evil}c`]: huge })
    const runs = [
      [],
      ['--json'],
      ['--check', 'auto'],
      ['--check', 'auto', '--json'],
      ['--check', 'BatchNorm2d', '--args', '{"numFeatures":2}'],
      ['--dtype', 'float16'],
      ['--select', 'nothing'],
      ['--rename', '[bc]$=', '--json'],
      ['--rename', '.*c$='],
      ['--fold', 'conv=a,norm=b'],
      ['-o', join(temporaryFolder(), evil, evil)],
      ['--strip-prefix', evil],
    ]
    for (const args of runs) {
      const { stdout, stderr } = spikenorm(['convert', path, ...args])
      const text = `${stdout}${stderr}`
      expect(text, args.join(' ')).not.toMatch(/(?!\n)[\p{Cc}\p{Cf}]/u)
      expect(text, args.join(' ')).not.toMatch(/^fake/m)
    }
    const { tensors } = converted(path)
    expect(tensors.at(-1).key).toBe(`${evil}c`)
  }, 60_000)

  it('as they are where they harm nobody', () => {
    const { stdout } = spikenorm(['convert', fileOf({ 'größe.✓ 重み': tensor([1], [1]) })])
    expect(stdout).toContain('größe.✓ 重み')
  })
})

describe('convert, dtypes', () => {
  it('rounds every float once and leaves whole numbers alone', () => {
    const values = [1, 1 / 3, -2.0004, 65504, 6e-8]
    const path = fileOf({ w: tensor(values, [5]), n: tensor([7n, 8n].map(Number), [2], { dtype: 'int64' }) })
    const out = join(temporaryFolder(), 'half.safetensors')
    converted(path, '--dtype', 'float16', '-o', out)
    const { w, n } = loadSafetensors(out)
    expect([w?.dtype, n?.dtype]).toEqual(['float16', 'int64'])
    expect(w?.toTypedArray()).toEqual(tensor(values, [5], { dtype: 'float16' }).toTypedArray())
    expect([...(n?.toFloat64Array() ?? [])]).toEqual([7, 8])
  })

  it('says which values become infinite, and only those', () => {
    const path = fileOf({ w: tensor([1e6, -1e6, Number.POSITIVE_INFINITY, 1], [4]), v: tensor([1], [1]) })
    expect(converted(path, '--dtype', 'float16').notes).toEqual([
      'w: 2 values are too large for float16 and infinite now',
    ])
    expect(converted(path, '--dtype', 'bfloat16').notes).toEqual([])
  })

  it('knows only floats', () => {
    const { status, stderr } = spikenorm(['convert', fixture('batch-norm'), '--dtype', 'int8'])
    expect(status).toBe(2)
    expect(stderr).toContain("--dtype takes float64, float32, float16, bfloat16, not 'int8'")
  })
})

describe('convert --check', () => {
  it('passes what each class saves, with arguments taken from the shapes', () => {
    const layers = {
      BatchNorm1d: new BatchNorm1d(5),
      ThresholdDependentBatchNorm3d: new ThresholdDependentBatchNorm3d(1, 0.5, 7),
      TemporalEffectiveBatchNorm2d: new TemporalEffectiveBatchNorm2d(4, 6),
      BatchNormThroughTime2d: new BatchNormThroughTime2d(3, 2),
      NeuNorm: new NeuNorm(3, 4, 5),
      Conv2d: new nn.Conv2d(3, 4, [2, 5], { bias: false }),
      Linear: new nn.Linear(6, 3),
    }
    for (const [name, layer] of Object.entries(layers)) {
      const { status, checks } = converted(fileOf(layer.stateDict()), '--check', name)
      expect(checks, name).toMatchObject([{ class: name, fits: true }])
      expect(status, name).toBe(0)
    }
    const { checks } = converted(fixture('through-time'), '--check', 'BatchNormThroughTime1d')
    expect(checks[0].args).toEqual({ T: 2, numFeatures: 3 })
  })

  it('lists missing, unexpected and wrong-shaped keys, and fails', () => {
    const dict = new BatchNorm2d(4).stateDict()
    const { running_var: _, ...rest } = dict
    const path = fileOf({ ...rest, running_mean: tensor([0, 0, 0], [3]), extra: tensor([1], [1]) })
    const args = ['--check', 'BatchNorm2d', '--args', '{"numFeatures":4}']
    const { status, checks } = converted(path, ...args)
    expect(status).toBe(1)
    expect(checks).toEqual([
      {
        prefix: '',
        class: 'BatchNorm2d',
        args: { numFeatures: 4 },
        fits: false,
        missing: ['running_var'],
        unexpected: ['extra'],
        wrongShape: [{ key: 'running_mean', expected: [4], got: [3] }],
      },
    ])
    const { stdout } = spikenorm(['convert', path, ...args])
    expect(stdout).toContain('root: does not fit BatchNorm2d(numFeatures: 4)')
    expect(stdout).toMatch(/^ +wrong shape running_mean: expected \[4\], got \[3\]$/m)
  })

  it('writes nothing where the check fails', () => {
    const out = join(temporaryFolder(), 'out.safetensors')
    const args = ['--check', 'BatchNorm2d', '--args', '{"numFeatures":4}', '-o', out]
    const { status, stdout } = spikenorm(['convert', fixture('batch-norm'), ...args])
    expect(status).toBe(1)
    expect(stdout).toContain('Not written')
    expect(existsSync(out)).toBe(false)
  })

  it('heeds the options that change the keys', () => {
    const path = fileOf(new BatchNorm2d(4, { affine: false }).stateDict())
    expect(converted(path, '--check', 'BatchNorm2d')).toMatchObject({
      status: 1,
      checks: [{ missing: ['weight', 'bias'] }],
    })
    expect(converted(path, '--check', 'BatchNorm2d', '--args', '{"affine":false}').status).toBe(0)
  })

  it('auto checks every layer that the keys tell of', () => {
    const { status, checks } = converted(fixture('pytorch-net'), '--select', 'net.', '--check', 'auto')
    expect(status).toBe(0)
    expect(
      checks.map(({ prefix, class: name }: { prefix: string; class: string }) => [prefix, name]),
    ).toEqual([
      ['0.', 'Conv2d'],
      ['1.', 'BatchNorm1d/2d/3d or ThresholdDependentBatchNorm1d/2d/3d'],
      ['4.', 'Linear'],
    ])
    const broken = new nn.Sequential(
      new nn.Conv2d(1, 2, 3),
      new TemporalEffectiveBatchNorm2d(4, 2),
    ).stateDict()
    delete broken['1.bias']
    const got = converted(fileOf(broken), '--check', 'auto')
    expect(got.status).toBe(1)
    expect(got.checks.map(({ fits }: { fits: boolean }) => fits)).toEqual([true, false])
    expect(got.checks[1]).toMatchObject({ prefix: '1.', missing: ['bias'], unexpected: [] })
    expect(spikenorm(['convert', fixture('dtypes'), '--check', 'auto'])).toMatchObject({ status: 1 })
  })

  it('says what is wrong with a class, an argument or JSON, with the nearest name', () => {
    const of = (...args: string[]) => {
      const { status, stderr } = spikenorm(['convert', fixture('batch-norm'), ...args])
      return `${status} ${stderr.split('\n')[0]}`
    }
    expect(of('--check', 'BatchNorm2')).toBe(
      '2 spikenorm convert: --check: unknown class BatchNorm2. Did you mean BatchNorm2d?',
    )
    expect(of('--check', 'BatchNorm2d', '--args', '{"numFeature":3}')).toContain('Did you mean numFeatures?')
    expect(of('--check', 'BatchNorm2d', '--args', '[3]')).toContain(
      '2 spikenorm convert: --args takes a JSON object',
    )
    expect(of('--args', '{"T":4}')).toContain('--args needs --check')
    expect(of('--check', 'TemporalEffectiveBatchNorm2d')).toContain(
      `the keys do not tell T and numFeatures; give --args '{"T": …, "numFeatures": …}'`,
    )
    // What a layer refuses is the layer's to say.
    expect(of('--check', 'BatchNorm2d', '--args', '{"numFeatures":-3}')).toMatch(/^1 .*numFeatures: expected/)
  })
})

describe('layers by their keys', () => {
  it('are told apart, with what the shapes say', () => {
    const net = new nn.Sequential(
      new nn.Conv2d(2, 3, 3),
      new BatchNorm2d(3),
      new TemporalEffectiveBatchNorm2d(5, 3),
      new nn.Residual(new nn.Sequential(new BatchNormThroughTime2d(2, 3), new NeuNorm(3, 6, 7))),
      new NeuNorm(3, 6, 7, { sharedAcrossChannels: true }),
      new nn.Linear(8, 9, { bias: false }),
    )
    const found = findLayers(net.stateDict()).map(({ prefix, classes, args }) => [
      prefix,
      classes.at(-1),
      args,
    ])
    expect(found).toEqual(
      expect.arrayContaining([
        ['0.', 'Conv2d', { inChannels: 2, outChannels: 3, kernelSize: 3 }],
        ['1.', 'ThresholdDependentBatchNorm3d', { numFeatures: 3 }],
        ['2.', 'TemporalEffectiveBatchNorm3d', { T: 5, numFeatures: 3 }],
        ['4.', 'NeuNorm', { sharedAcrossChannels: true, height: 6, width: 7 }],
        ['5.', 'Linear', { inFeatures: 8, outFeatures: 9, bias: false }],
      ]),
    )
    expect(found).toHaveLength(7)
    expect(found.map(([prefix]) => prefix)).toEqual(
      expect.arrayContaining([expect.stringMatching(/^3\..*0\.$/), expect.stringMatching(/^3\..*1\.$/)]),
    )
  })
})
