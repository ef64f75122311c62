// The documentation is true: paths it names exist, and its TypeScript compiles, runs and trains.

import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { cuda, functional, nn, optim } from '../src/index.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const read = (name: string) => readFileSync(join(root, name), 'utf8')

/** Names of all files of the project, without those that are made or installed. */
function fileNames(folder = root): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    if (entry.isDirectory()) {
      const made = ['node_modules', 'target', 'dist', '.git', '.cache', 'docs-site'].includes(entry.name)
      return made ? [] : fileNames(join(folder, entry.name))
    }
    return [entry.name]
  })
}

/** What a document puts in backticks, outside its blocks of code, cut at spaces; a span may go on in the next line. */
function codeWords(text: string): string[] {
  const prose = text.replace(/^```[\s\S]*?^```/gm, '')
  return [...prose.matchAll(/`([^`]+)`/g)].flatMap(([, span]) => span!.split(/\s+/))
}

const isPath = (word: string) => /^[\w.-]+(\/[\w.*-]*)+$/.test(word)
const isFile = (word: string) => /^[\w-]+(\.[\w-]+)*\.(ts|js|mjs|rs|md|json|toml|py)$/.test(word)
/** The part of `src/layers/*` before its asterisk. */
const beforeAsterisk = (path: string) => path.replace(/\/?[^/]*\*.*$/, '')

/** `layer.__all__` of SpikingJelly 2.0, all its files together. */
const SPIKINGJELLY_LAYERS = `
  BatchNorm1d BatchNorm2d BatchNorm3d NeuNorm ThresholdDependentBatchNorm1d ThresholdDependentBatchNorm2d
  ThresholdDependentBatchNorm3d TemporalEffectiveBatchNorm1d TemporalEffectiveBatchNorm2d TemporalEffectiveBatchNorm3d
  BatchNormThroughTime1d BatchNormThroughTime2d BatchNormThroughTime3d
  Conv1d Conv2d Conv3d Upsample ConvTranspose1d ConvTranspose2d ConvTranspose3d GroupNorm MaxPool1d MaxPool2d MaxPool3d
  MaxUnpool1d MaxUnpool2d MaxUnpool3d AvgPool1d AvgPool2d AvgPool3d AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d
  Linear Flatten WSConv2d WSLinear
  MultiStepContainer SeqToANNContainer TLastMultiStepContainer TLastSeqToANNContainer StepModeContainer
  ElementWiseRecurrentContainer LinearRecurrentContainer
  Dropout Dropout2d DropConnectLinear
  SynapseFilter PrintShapeModule VotingLayer Delay SpikeCountToBinary TemporalBinSum
  TemporalWiseAttention MultiDimensionalAttention SpikingSelfAttention QKAttention TokenQKAttention ChannelQKAttention
  SpikeDrivenSelfAttention
  ReplaceforGrad GradwithTrace SpikeTraceOp OTTTSequential
`
  .trim()
  .split(/\s+/)

const NAMESPACES: Record<string, object> = { cuda, functional, nn, optim }

/** What users import, and the source of each: read from the table itself, which is plain JavaScript. */
const ENTRY_POINTS: Record<string, string> = await entryPoints()

async function entryPoints(): Promise<Record<string, string>> {
  const path = pathToFileURL(join(root, 'scripts', 'package', 'entries.mjs')).href
  const { LIBRARIES } = (await import(path)) as { LIBRARIES: Record<string, string> }
  const named = Object.entries(LIBRARIES).map(([entry, source]) => [
    entry === 'index' ? 'spikenorm' : `spikenorm/${entry}`,
    source,
  ])
  return Object.fromEntries(named) as Record<string, string>
}

describe('CONTRIBUTING.md', () => {
  const text = read('CONTRIBUTING.md')

  it('names only paths that exist', () => {
    const paths = codeWords(text).filter(isPath)
    expect(paths.length).toBeGreaterThan(8)
    expect(paths.filter((path) => !existsSync(join(root, beforeAsterisk(path))))).toEqual([])
  })

  it('names only files that exist, where it leaves their folder out', () => {
    const names = new Set(fileNames())
    expect(codeWords(text).filter((word) => isFile(word) && !names.has(word))).toEqual([])
  })

  it('names only scripts that package.json has', () => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> }
    const named = [...text.matchAll(/npm run ([\w:-]+)/g)].map(([, name]) => name!)
    expect(named.filter((name) => !(name in scripts))).toEqual([])
  })

  it('is under 150 lines', () => {
    expect(text.split('\n').length).toBeLessThan(150)
  })
})

/** A document without its generated section and the links between the two languages. */
const withoutGenerated = (text: string) =>
  text.replace(/<!-- bench: generated[\s\S]*?<!-- bench: end -->/, '')
const blocksOf = (text: string) => [...text.matchAll(/^```ts\n([\s\S]*?)^```/gm)].map(([, code]) => code!)

describe.each(['README.md', 'README.zh-CN.md'])('%s', (name) => {
  const text = read(name)
  let folder = ''
  beforeAll(() => {
    // Within the project, so that a block finds the packages it imports.
    mkdirSync(join(root, '.cache'), { recursive: true })
    folder = mkdtempSync(join(root, '.cache', 'readme-'))
  })
  afterAll(() => rmSync(folder, { recursive: true }))
  const blocks = blocksOf(text)

  it('links only to files that exist', () => {
    const links = [...text.matchAll(/\]\((?!https?:|#)([^)#]+)/g)].map(([, path]) => path!)
    expect(links.length).toBeGreaterThan(4)
    expect(links.filter((path) => !existsSync(join(root, path)))).toEqual([])
  })

  it('lists every code of SpikenormError that can be matched on', () => {
    const declared = [...read('src/errors.ts').matchAll(/'(ERR_[A-Z_]+)'/g)].map(([, code]) => code!)
    // A defect of the library, which nobody should write code for.
    const codes = declared.filter((code) => code !== 'ERR_INTERNAL' && code !== 'ERR_')
    expect(codes.length).toBeGreaterThan(10)
    expect([...new Set(codes)].filter((code) => !text.includes(code))).toEqual([])
  })

  it('says of every layer of SpikingJelly 2.0 what it is here, or that it is not', () => {
    const named = new Set(
      codeWords(text).flatMap((word) => {
        const bare = word.replace(/[,()].*$/, '')
        const [, base, dimensions] = /^(\w+?)((?:\/?\dd)+)$/.exec(bare) ?? []
        return dimensions ? dimensions.split('/').map((dimension) => base + dimension) : [bare]
      }),
    )
    expect(SPIKINGJELLY_LAYERS.length).toBe(64)
    expect(SPIKINGJELLY_LAYERS.filter((layer) => !named.has(layer))).toEqual([])
  })

  it('names only members of nn, optim, functional and cuda that there are, or that SpikingJelly has', () => {
    const used = [...text.matchAll(/`((?:nn|optim|functional|cuda)\.\w+)/g)].map(([, path]) => path!)
    expect(used.length).toBeGreaterThan(10)
    // Types are not there at run time; the report of the API has them.
    const types = new Set(
      [...read('etc/spikenorm.api.md').matchAll(/^interface (\w+)/gm)].map(([, type]) => type!),
    )
    const known = (path: string) => {
      const [space, member] = path.split('.') as [string, string]
      const isTheirs = /^(set_|reset_|detach_|fuse_)/.test(member)
      return isTheirs || types.has(member) || member in (NAMESPACES[space] as object)
    }
    expect(used.filter((path) => !known(path))).toEqual([])
  })

  it('has TypeScript to show', () => {
    expect(blocks.length).toBeGreaterThan(1)
  })

  it('names only scripts that package.json has, and says how to install from a clone before it is on npm', () => {
    const { private: isPrivate, scripts } = JSON.parse(read('package.json')) as {
      private?: boolean
      scripts: Record<string, string>
    }
    const named = [...text.matchAll(/npm run ([\w:-]+)/g)].map(([, script]) => script!)
    expect(named.filter((script) => !(script in scripts))).toEqual([])
    const installs = [...text.matchAll(/npm install ([^\n`]+)/g)].map(([, what]) => what!)
    if (isPrivate) expect(installs[0]).toContain('--install-links ../spikenorm')
    expect(installs).toContain('spikenorm')
  })

  it('names the instruction sets that the kernels are compiled for, and no other', () => {
    const named = text.match(/AVX[-\d]*|SSE[-\d.]*|NEON/g)
    expect([...new Set(named)].sort()).toEqual(['AVX2', 'NEON'])
    const levels = [...read('crates/cpu/src/simd.rs').matchAll(/"(AVX\S*|NEON)"/g)].map(([, level]) => level)
    expect([...new Set(levels)].sort()).toEqual(['AVX2', 'NEON'])
  })

  it('names every package of TensorFlow.js that its programs import, where it says what to install', () => {
    const imported = blocks.flatMap((code) =>
      [...code.matchAll(/'(@tensorflow\/[\w-]+)'/g)].map(([, name]) => name!),
    )
    const [line] = text.match(/^npm install @tensorflow.*$/m) ?? []
    expect(line?.split(' ').slice(2).sort()).toEqual([...new Set(imported)].sort())
    const { peerDependencies } = JSON.parse(read('package.json')) as { peerDependencies: object }
    expect(line?.split(' ')).toEqual(expect.arrayContaining(Object.keys(peerDependencies)))
  })

  blocks.forEach((code, i) => {
    const title = code.split('\n').find((line) => line.trim() && !line.startsWith('import'))

    it(`block ${i + 1} compiles under the settings of the project: ${title}`, () => {
      const file = join(folder, `block${i}.mts`)
      writeFileSync(file, code)
      const config = {
        extends: join(root, 'tsconfig.json'),
        compilerOptions: {
          paths: Object.fromEntries(
            Object.entries(ENTRY_POINTS).map(([entry, source]) => [entry, [join(root, source)]]),
          ),
          typeRoots: [join(root, 'node_modules', '@types')],
        },
        include: [],
        files: [file],
      }
      writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(config))
      const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc')
      const { stdout, status } = spawnSync(process.execPath, [tsc, '-p', folder], { encoding: 'utf8' })
      expect(stdout).toBe('')
      expect(status).toBe(0)
    })

    it(`block ${i + 1} runs, and the losses it prints go down`, () => {
      const file = join(folder, `run${i}.mts`)
      writeFileSync(
        file,
        code.replaceAll(/from '(spikenorm[^']*)'/g, (_, entry: string) => {
          const source = ENTRY_POINTS[entry]
          if (source === undefined) throw new Error(`${entry} is no entry point of this package`)
          return `from '${pathToFileURL(join(root, source)).href}'`
        }),
      )
      // In that folder: a block may write files.
      const loader = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href
      const run = spawnSync(process.execPath, ['--import', loader, file], { cwd: folder, encoding: 'utf8' })
      // TensorFlow.js greets on Node.
      expect(run.stderr.replace(/\n=+\nHi,[\s\S]*?\n=+\n/, '').trim()).toBe('')
      expect(run.status).toBe(0)
      const losses = [...run.stdout.matchAll(/^\d+ (\d+\.\d+)$/gm)].map(([, loss]) => Number(loss))
      if (code.includes('loss')) {
        expect(losses.length).toBeGreaterThan(1)
        expect(losses.at(-1)!).toBeLessThan(losses[0]!)
      }
    })
  })
})

describe('README.zh-CN.md beside README.md', () => {
  const [english, chinese] = [read('README.md'), read('README.zh-CN.md')].map(withoutGenerated) as [
    string,
    string,
  ]

  it('has the same sections, tables and blocks', () => {
    const outline = (text: string) => ({
      sections: [...text.matchAll(/^#+ /gm)].length,
      rows: [...text.matchAll(/^\|.*\|$/gm)].length,
      blocks: [...text.matchAll(/^```(\w+)/gm)].map(([, language]) => language),
    })
    expect(outline(chinese)).toEqual(outline(english))
  })

  it('names the same code, numbers and files', () => {
    const names = (text: string) => [...new Set(codeWords(text))].sort()
    expect(names(chinese)).toEqual(names(english))
    const links = (text: string) =>
      [...text.matchAll(/\]\(([^)]+)\)/g)]
        .map(([, path]) => path!)
        .filter((path) => !path.startsWith('README'))
    expect(links(chinese)).toEqual(links(english))
  })

  it('shows the same programs, but for their comments', () => {
    const programs = (text: string) => blocksOf(text).map((code) => code.replaceAll(/\s*\/\/.*$/gm, ''))
    expect(programs(chinese)).toEqual(programs(english))
  })

  it('is linked from there and links back', () => {
    expect(english).toContain('[简体中文](README.zh-CN.md)')
    expect(chinese).toContain('[English](README.md)')
  })
})

describe.each(['docs/versioning.md'])('%s', (name) => {
  const text = read(name)

  it('names only scripts that package.json has', () => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> }
    const named = [...text.matchAll(/npm run ([\w:-]+)/g)].map(([, script]) => script!)
    expect(named.length).toBeGreaterThan(1)
    expect(named.filter((script) => !(script in scripts))).toEqual([])
  })
})
