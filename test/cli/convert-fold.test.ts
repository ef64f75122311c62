// Folded by the command, a net computes what it did before.

import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { foldDict, parseFolding } from '../../src/cli/convert/fold.js'
import {
  BatchNorm1d,
  BatchNorm2d,
  BatchNormThroughTime1d,
  fold,
  loadSafetensors,
  type Module,
  nn,
  TemporalEffectiveBatchNorm2d,
  type Tensor,
  ThresholdDependentBatchNorm2d,
  tensor,
} from '../../src/index.js'
import { expectClose, expectSameBits } from '../support/compare.js'
import { EXACT, random } from '../support/tolerances.js'
import { converted, fileOf, spikenorm, temporaryFolder } from './support.js'

describe('convert --fold', () => {
  const values = (size: number, seed: number) =>
    Float64Array.from({ length: size }, (_, i) => Math.sin(i * 7.3 + seed))

  /** Running statistics and parameters without a pattern, variances positive. */
  function scramble<M extends Module>(layer: M): M {
    for (const [seed, [name, value]] of [...layer.namedParameters(), ...layer.namedBuffers()].entries()) {
      if (value.dtype === 'int64') continue
      const filled = values(value.size, seed).map((each) => (name.includes('var') ? each * each + 0.1 : each))
      value.copy_(tensor(filled, value.shape))
    }
    return layer
  }

  function prefixed(layers: Record<string, Module>): Record<string, Tensor> {
    return Object.fromEntries(
      Object.entries(layers).flatMap(([prefix, layer]) =>
        Object.entries(layer.stateDict()).map(([key, value]) => [`${prefix}.${key}`, value]),
      ),
    )
  }

  function folded(layers: Record<string, Module>, ...args: string[]) {
    const out = join(temporaryFolder(), 'folded.safetensors')
    const { status, stderr } = converted(fileOf(prefixed(layers)), ...args, '-o', out)
    expect(status, stderr).toBe(0)
    return loadSafetensors(out)
  }

  /** The entries of one layer, named as in its own state dict. */
  function below(prefix: string, dict: Record<string, Tensor>) {
    const own = Object.entries(dict).filter(([key]) => key.startsWith(prefix))
    return Object.fromEntries(own.map(([key, value]) => [key.slice(prefix.length), value]))
  }

  /** Largest difference of two outputs. */
  function error(got: Tensor, expected: Tensor): number {
    const [a, b] = [got.toFloat64Array(), expected.toFloat64Array()]
    expect(got.shape).toEqual(expected.shape)
    return a.reduce((worst, value, i) => Math.max(worst, Math.abs(value - (b[i] as number))), 0)
  }

  it('computes what convolution and norm did, other layers untouched', () => {
    const conv = scramble(new nn.Conv2d(2, 3, 3, { bias: false, stepMode: 'm' }))
    const norm = scramble(new ThresholdDependentBatchNorm2d(1, 0.5, 3, { eps: 1e-3 })).eval()
    const head = scramble(new nn.Linear(4, 5))
    const dict = folded({ conv1: conv, bn1: norm, head }, '--fold', 'conv=conv1,norm=bn1,eps=1e-3')
    expect(Object.keys(dict)).toEqual(['conv1.bias', 'conv1.weight', 'head.bias', 'head.weight'])
    expect(dict['head.weight']?.toTypedArray()).toEqual(head.weight.toTypedArray())
    const after = new nn.Conv2d(2, 3, 3, { stepMode: 'm' })
    after.loadStateDict({ weight: dict['conv1.weight'] as Tensor, bias: dict['conv1.bias'] as Tensor })
    const x = tensor(values(2 * 2 * 2 * 25, 9), [2, 2, 2, 5, 5], { dtype: 'float32' })
    expect(error(after.forward(x), norm.forward(conv.forward(x)))).toBeLessThan(2e-5)
    // With the usual eps it would be another net.
    const other = folded({ conv1: conv, bn1: norm, head }, '--fold', 'conv=conv1,norm=bn1')
    expect(error(other['conv1.weight'] as Tensor, dict['conv1.weight'] as Tensor)).toBeGreaterThan(1e-4)
  })

  it('folds a norm per step into a layer per step', () => {
    const linear = scramble(new nn.Linear(3, 2, { stepMode: 'm' }))
    const norm = scramble(new BatchNormThroughTime1d(3, 2, { stepMode: 'm' })).eval()
    const dict = folded({ 'a.fc': linear, 'a.bn': norm }, '--fold', 'norm=a.bn.,conv=a.fc.')
    const steps = [0, 1, 2].flatMap((t) => [`a.fc.${t}.bias`, `a.fc.${t}.weight`])
    expect(Object.keys(dict)).toEqual(steps)
    const after = new nn.PerStep(
      [0, 1, 2].map(() => new nn.Linear(3, 2)),
      { stepMode: 'm' },
    )
    after.loadStateDict(Object.fromEntries(Object.entries(dict).map(([key, value]) => [key.slice(5), value])))
    const x = tensor(values(3 * 4 * 3, 5), [3, 4, 3], { dtype: 'float32' })
    expect(error(after.forward(x), norm.forward(linear.forward(x)))).toBeLessThan(2e-5)
  })

  it('folds TEBN into a layer per step weighted by its scale, computed in float64', () => {
    const float64 = { dtype: 'float64' } as const
    const conv = scramble(new nn.Conv2d(2, 3, 3, { stepMode: 'm', ...float64 }))
    const norm = scramble(new TemporalEffectiveBatchNorm2d(3, 3, float64)).eval()
    const dict = folded({ conv, norm }, '--fold', 'conv=conv,norm=norm')
    const after = new nn.PerStep(
      [0, 1, 2].map(() => new nn.Conv2d(2, 3, 3, float64)),
      { stepMode: 'm', cyclic: true },
    )
    after.loadStateDict(below('conv.', dict))
    const x = tensor(values(3 * 2 * 2 * 25, 5), [3, 2, 2, 5, 5])
    const want = norm.forward(conv.forward(x)).toFloat64Array()
    expectClose('y', after.forward(x).toFloat64Array(), want, random('y', 'float64', want, 10))
  })

  it('does one folding after the other, by the names that renaming gives and before the dtype is changed', () => {
    const [first, second] = [scramble(new nn.Linear(3, 3)), scramble(new nn.Linear(3, 2))]
    const [one, two, three] = [3, 2, 2].map((features) => scramble(new BatchNorm1d(features)).eval())
    const dict = folded(
      { 'net.fc1': first, 'net.bn1': one!, 'net.fc2': second, 'net.bn2': two!, 'net.bn3': three! },
      ...['--rename', '^net=n', '--dtype', 'float64'],
      ...['1,norm=n.bn1', '2,norm=n.bn2', '2,norm=n.bn3'].flatMap((pair) => ['--fold', `conv=n.fc${pair}`]),
    )
    expect(Object.keys(dict)).toEqual(['n.fc1.bias', 'n.fc1.weight', 'n.fc2.bias', 'n.fc2.weight'])
    const expected = [fold(first, one!), fold(fold(second, two!) as nn.Linear, three!)]
    for (const [i, layer] of expected.entries()) {
      for (const [key, value] of Object.entries(layer.stateDict())) {
        const got = dict[`n.fc${i + 1}.${key}`] as Tensor
        expect(got.dtype).toBe('float64')
        expectClose(key, got.toFloat64Array(), value.toFloat64Array(), EXACT)
      }
    }
  })

  it('leaves layers below the two as they are', () => {
    const [layer, norm, inner] = [new nn.Linear(2, 2), new BatchNorm1d(2), new nn.Linear(2, 3)].map(scramble)
    const layers = { fc: layer!, 'fc.norm': norm!, 'fc.inner': inner!, 'fc.norm.inner': inner! }
    const dict = folded(layers, '--fold', 'conv=fc,norm=fc.norm')
    const kept = ['fc.inner', 'fc.norm.inner'].flatMap((name) => [`${name}.bias`, `${name}.weight`])
    expect(Object.keys(dict).sort()).toEqual(['fc.bias', 'fc.weight', ...kept].sort())
    for (const key of kept) expect(dict[key]?.toTypedArray()).toEqual(prefixed(layers)[key]?.toTypedArray())
  })

  it('gives the dtype of the layer, whatever that of the norm', () => {
    const [layer, norm] = [scramble(new nn.Linear(2, 2)), scramble(new BatchNorm1d(2, { dtype: 'float64' }))]
    const dict = folded({ fc: layer, norm }, '--fold', 'conv=fc,norm=norm')
    expect(Object.values(dict).map(({ dtype }) => dtype)).toEqual(['float32', 'float32'])
  })

  it('keeps the dtype of the layer, and does without weight and bias of the norm', () => {
    const conv = scramble(new nn.Conv2d(1, 2, 1))
    const norm = scramble(new BatchNorm2d(2, { affine: false }))
    const file = fileOf(prefixed({ conv, norm }))
    const half = join(temporaryFolder(), 'half.safetensors')
    converted(file, '--dtype', 'float16', '-o', half)
    const out = join(temporaryFolder(), 'out.safetensors')
    expect(converted(half, '--fold', 'conv=conv,norm=norm', '-o', out).status).toBe(0)
    const dict = loadSafetensors(out)
    expect(Object.values(dict).map(({ dtype }) => dtype)).toEqual(['float16', 'float16'])
    const [mean, variance] = ['running_mean', 'running_var'].map((key) =>
      loadSafetensors(half)[`norm.${key}`]?.toFloat64Array(),
    ) as [Float64Array, Float64Array]
    const given = loadSafetensors(half)
    const expected = [0, 1].map((c) => {
      const factor = 1 / Math.sqrt((variance[c] as number) + 1e-5)
      return factor * ((given['conv.bias']?.toFloat64Array()[c] as number) - (mean[c] as number))
    })
    const rounded = tensor(expected, [2], { dtype: 'float16' })
    expect(dict['conv.bias']?.toTypedArray()).toEqual(rounded.toTypedArray())
  })

  it('says what is not there and what is not understood', () => {
    const path = fileOf(
      prefixed({ conv1: new nn.Conv2d(1, 2, 3), bn1: new BatchNorm2d(2), fc: new nn.Linear(2, 3) }),
    )
    const of = (spec: string) => {
      const { status, stderr } = spikenorm(['convert', path, '--fold', spec])
      return `${status} ${stderr.split('\n')[0]}`
    }
    expect(of('conv=conv2,norm=bn1')).toBe(
      '1 spikenorm convert: --fold: conv=conv2 has not the keys of a Conv2d or Linear; there are conv1, fc',
    )
    expect(of('conv=conv1,norm=fc')).toContain('norm=fc has not the keys of a batch norm; there are bn1')
    expect(of('conv=fc,norm=bn1')).toMatch(/^1 .*2 features.*3 outputs/)
    expect(of('conv=conv1')).toContain("2 spikenorm convert: --fold 'conv=conv1': norm= is missing.")
    expect(of('cnv=conv1,norm=bn1')).toContain('Did you mean conv?')
    expect(of('conv=conv1,norm=bn1,eps=x')).toMatch(/^2 .*eps takes a number/)
  })

  it('needs no counters of batches, and says where there are no running statistics', () => {
    const [layer, norm] = [scramble(new nn.Linear(2, 2)), scramble(new BatchNormThroughTime1d(2, 2))]
    const dict = prefixed({ fc: layer, norm })
    const names = { conv: 'fc.', norm: 'norm.', eps: 1e-5 }
    const whole = Object.entries(foldDict(dict, names))
    const isCounter = ([key]: [string, Tensor]) => key.endsWith('num_batches_tracked')
    const uncounted = Object.fromEntries(Object.entries(dict).filter((entry) => !isCounter(entry)))
    const got = foldDict(uncounted, names)
    expect(Object.keys(got)).toEqual(whole.map(([key]) => key))
    for (const [key, value] of whole) expectSameBits(key, got[key] as Tensor, value)
    const untracked = new TemporalEffectiveBatchNorm2d(2, 3, { trackRunningStats: false })
    const without = prefixed({ fc: new nn.Conv2d(1, 3, 1), norm: untracked })
    expect(() => foldDict(without, names)).toThrow('norm=norm has no running statistics')
  })

  it('takes an eps from 0 to 1', () => {
    const eps = (text: string) => parseFolding(`conv=conv1,norm=bn1,eps=${text}`).eps
    expect([eps('0'), eps('1e-3')]).toEqual([0, 1e-3])
    for (const text of ['-1e-5', '1', 'x', 'NaN']) expect(() => eps(text)).toThrow(/eps takes a number/)
  })
})
