// The demo as its users run it: a child process, its exit code, what it prints and what it leaves behind.

import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { cuda, loadSafetensors } from 'spikenorm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { NORMS, type NormName } from '../examples/digits/options.js'
import { legend, lineChart } from '../examples/digits/report/lines.js'
import { STYLE } from '../examples/digits/report/style.js'
import type { Results } from '../examples/digits/results.js'

const ROOT = join(import.meta.dirname, '..')
const SCRATCH = mkdtempSync(join(tmpdir(), 'spikenorm-demo-'))
const TINY = ['--quick', '--depth', '2', '--steps', '2', '--epochs', '1', '--threads', '1']
const MINUTE = 60_000

afterAll(() => rmSync(SCRATCH, { recursive: true, force: true }))

interface Ended {
  code: number | null
  stdout: string
  stderr: string
}

/** `watch` sees everything printed so far, each time there is more of it. */
function demo(
  args: string[],
  watch?: (stdout: string, kill: (signal: NodeJS.Signals) => void) => void,
): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--import', 'tsx', 'examples/digits/main.ts', ...args], {
      cwd: ROOT,
    })
    const ended: Ended = { code: null, stdout: '', stderr: '' }
    child.stdout.on('data', (chunk: Buffer) => {
      ended.stdout += chunk.toString()
      watch?.(ended.stdout, (signal) => child.kill(signal))
    })
    child.stderr.on('data', (chunk: Buffer) => {
      ended.stderr += chunk.toString()
    })
    child.on('error', reject)
    child.on('close', (code) => resolve({ ...ended, code }))
  })
}

const tooWide = (text: string) => text.split('\n').filter(({ length }) => length > 80)

function readResults(out: string): Results {
  return JSON.parse(readFileSync(join(out, 'results.json'), 'utf8')) as Results
}

/** The numbers of a run that a seed determines: all but the times. */
function determined({ runs, images }: Results) {
  const withoutTimes = runs.map(({ seconds: _, epochs, ...run }) => ({
    ...run,
    epochs: epochs.map(({ seconds: _, ...epoch }) => epoch),
  }))
  return { images, runs: withoutTimes }
}

describe('a run of two norms', () => {
  const out = join(SCRATCH, 'two', 'norms')
  let ended: Ended

  beforeAll(async () => {
    ended = await demo([...TINY, '--norm', 'tebn,none', '--out', out])
  }, MINUTE)

  it('ends with exit code 0, a line per epoch and a table in the order of the norms', () => {
    const { code, stdout, stderr } = ended
    expect(stderr).toBe('')
    expect(code).toBe(0)
    expect(stdout).toMatch(/^none +epoch 1\/1 +loss \d+\.\d{4} +train +[\d.]+ % +test +[\d.]+ % +[\d.]+ s$/m)
    expect(stdout).toMatch(
      /^ +test +best .*\nnorm +accuracy +epoch .*\n─+.*\nnone +[\d.]+ %.*\nTEBN +[\d.]+ %/m,
    )
    expect(tooWide(stdout.replace(/^Written to.*/m, ''))).toEqual([])
    expect(stdout).toContain(`Written to ${out}`)
  })

  it('leaves the report, the results and one weights file per norm, and nothing else', () => {
    expect(readdirSync(out).sort()).toEqual([
      'none.safetensors',
      'report.html',
      'results.json',
      'tebn.safetensors',
    ])
  })

  it('reaches the same accuracy with the weights read back from the file', () => {
    const { runs } = readResults(out)
    expect(runs.map(({ norm }) => norm)).toEqual(['none', 'tebn'])
    for (const { testAccuracy, reloadedAccuracy, epochs, bestEpoch } of runs) {
      expect(reloadedAccuracy).toBe(testAccuracy)
      expect(epochs[bestEpoch - 1]?.testAccuracy).toBe(testAccuracy)
    }
  })

  it('writes weights under the names that PyTorch gives them', () => {
    const names = Object.keys(loadSafetensors(join(out, 'tebn.safetensors')))
    expect(names).toEqual(
      expect.arrayContaining(['0.weight', '1.weight', '1.running_var', '1.scale', '4.scale']),
    )
  })

  it('draws a report that needs nothing from elsewhere', () => {
    const page = readFileSync(join(out, 'report.html'), 'utf8')
    expect(page).not.toMatch(/<script|<link|<img|@import|url\(|src=|href=/)
    expect(page).toMatch(/<div class="scroll"[^>]*><table>/)
    expect(page.match(/<figure>/g)).toHaveLength(4 + 2 * 2)
    expect(page).not.toMatch(/NaN|undefined|Infinity/)
  })

  it('uses every image once', () => {
    const { train, validation, test } = readResults(out).images
    expect([train, validation, test]).toEqual([1258, 180, 359])
  })
})

describe('the seed', () => {
  const outs = ['one', 'threads', 'seed'].map((name) => join(SCRATCH, name)) as [string, string, string]

  beforeAll(async () => {
    const norms = ['--norm', 'batchnorm,tdbn,bntt']
    await demo([...TINY, ...norms, '--out', outs[0]])
    await demo([...TINY, ...norms, '--threads', '2', '--out', outs[1]])
    await demo([...TINY, ...norms, '--seed', '1', '--out', outs[2]])
  }, MINUTE)

  it('gives the same numbers again, whatever the number of threads', () => {
    const [one, threads] = outs.map((out) => determined(readResults(out)))
    expect(threads).toEqual(one)
  })

  it('gives other numbers where it is another', () => {
    const [one, , seed] = outs.map((out) => readResults(out).runs[0]?.start.gradientNorm)
    expect(seed).not.toBe(one)
  })

  it('gives all norms the same weights and batches: at v_th = 1, tdBN is BatchNorm to the last bit', () => {
    const [batchNorm, tdbn] = determined(readResults(outs[0])).runs
    expect({ ...tdbn, norm: '', weightsFile: '' }).toEqual({ ...batchNorm, norm: '', weightsFile: '' })
  })
})

it.skipIf(process.platform === 'win32')(
  'keeps what the finished epochs gave when Ctrl-C ends it',
  { timeout: MINUTE },
  async () => {
    const out = join(SCRATCH, 'interrupted')
    const ended = await demo(
      [...TINY, '--norm', 'none,tdbn', '--epochs', '500', '--out', out],
      (stdout, kill) => {
        if (/epoch +2\//.test(stdout)) kill('SIGINT')
      },
    )
    expect(ended.stderr).toBe('')
    expect(ended.code).toBe(130)
    expect(ended.stdout).toContain('Stopped by Ctrl-C')
    const { interrupted, runs } = readResults(out)
    expect(interrupted).toBe(true)
    expect(runs.map(({ norm, complete }) => [norm, complete])).toEqual([['none', false]])
    expect(runs[0]?.reloadedAccuracy).toBe(runs[0]?.testAccuracy)
    expect(readdirSync(out).sort()).toEqual(['none.safetensors', 'report.html', 'results.json'])
  },
)

describe('wrong options', () => {
  const file = join(SCRATCH, 'a-file')
  writeFileSync(file, '')

  it.each([
    [['--norm', 'tdbn,layernorm'], "'layernorm' is not one of none, batchnorm, tdbn, tebn, bntt, neunorm"],
    [['--norm', ','], 'one or more of none, batchnorm'],
    [['--depth', '0'], "--depth takes a whole number from 1 to 32, not '0'"],
    [['--steps', '2.5'], "--steps takes a whole number from 1 to 32, not '2.5'"],
    [['--epochs', 'many'], "--epochs takes a whole number from 1 to 500, not 'many'"],
    [['--batch', '1'], "--batch takes a whole number from 2 to 1024, not '1'"],
    [['--vth', '0'], "--vth takes a number above 0, such as 0.5 or 3, not '0'"],
    [['--device', 'gpu'], "--device takes cpu, cuda or cuda:<n>, not 'gpu'"],
    [['--out', join(file, 'below')], 'cannot write to this folder'],
    [['--epoch', '3'], "Unknown option '--epoch'"],
    [['tdbn'], "Unexpected argument 'tdbn'"],
    [['--norm'], 'argument missing'],
  ])('%j ends with exit code 2 and says what to do', { timeout: MINUTE }, async (args, message) => {
    const { code, stdout, stderr } = await demo(args)
    expect(stderr).toContain(message)
    expect(stderr).toContain('--help')
    expect(stderr.trim().split('\n')).toHaveLength(1)
    expect(stdout).toBe('')
    expect(code).toBe(2)
  })

  it.skipIf(cuda.isAvailable())('--device cuda without a CUDA device ends with exit code 2', async () => {
    const out = join(SCRATCH, 'no-cuda')
    const { code, stderr } = await demo([...TINY, '--device', 'cuda', '--out', out])
    expect(stderr).toMatch(/--device cuda: .*CUDA.* Leave the option out to run on the CPU/)
    expect(code).toBe(2)
    expect(existsSync(out)).toBe(false)
  })
})

describe('charts of the report', () => {
  const accuracies = { none: 8.6, batchnorm: 98.6, tdbn: 98.6, tebn: 98.3, bntt: 96.9, neunorm: 97.5 }
  const lines = Object.entries(accuracies).map(([norm, accuracy]) => ({
    norm: norm as NormName,
    values: [100 - accuracy, 100 - accuracy],
  }))
  const drawn = lineChart({ description: '', x: 'epoch', lines, least: 0.1, format: String })

  it('have an axis on which nets that differ by one image of 359 lie apart, beside one that learned nothing', () => {
    const ends = [...drawn.matchAll(/class="stroke" d="M[\d.]+ [\d.]+L([\d.]+) ([\d.]+)"/g)]
    expect(ends).toHaveLength(6)
    const heights = new Set(ends.map(([, , y]) => Number(y)))
    // tdBN is BatchNorm.
    expect(heights.size).toBe(5)
    const sorted = [...heights].sort((a, b) => a - b)
    for (const [i, y] of sorted.slice(1).entries()) expect(y - (sorted[i] as number)).toBeGreaterThan(8)
    expect(new Set(ends.map(([, x]) => x)).size).toBe(6)
  })

  it('have an axis for values of zero too', () => {
    const zeros = [{ norm: 'none' as const, values: [0, 0] }]
    expect(lineChart({ description: '', x: 'epoch', lines: zeros, least: 0.1, format: String })).not.toMatch(
      /NaN|Infinity/,
    )
  })

  it('draw each net with dashes and a marker of its own, which the legend shows', () => {
    const dashes = NORMS.map(
      (norm) => new RegExp(`\\.${norm} \\.stroke[^}]*dasharray: ([\\d. ]+)`).exec(STYLE)?.[1],
    )
    expect(new Set(dashes).size).toBe(NORMS.length)
    const samples = legend(NORMS).match(/<li.*?<\/li>/g) as string[]
    expect(samples).toHaveLength(NORMS.length)
    const markers = samples.map((sample) => sample.replace(/class="series.*?>/, '').replace(/<\/svg>.*/, ''))
    expect(new Set(markers).size).toBe(NORMS.length)
  })
})

it('the table of the report scrolls by itself where the screen is narrow', () => {
  expect(STYLE).toMatch(/\.scroll \{ overflow-x: auto/)
  expect(STYLE).toMatch(/table \{[^}]*min-width: max-content/)
})

it('--help lists every option and ends with exit code 0', async () => {
  const { code, stdout } = await demo(['--help'])
  expect(tooWide(stdout)).toEqual([])
  for (const name of [
    'norm',
    'depth',
    'steps',
    'vth',
    'epochs',
    'seed',
    'batch',
    'threads',
    'device',
    'out',
    'quick',
  ]) {
    expect(stdout).toContain(`--${name} `)
  }
  expect(code).toBe(0)
})
