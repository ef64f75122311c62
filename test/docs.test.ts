// The documentation is true: paths it names exist, and its TypeScript compiles, runs and trains.

import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))
const read = (name: string) => readFileSync(join(root, name), 'utf8')

/** Names of all files of the project, without those that are made or installed. */
function fileNames(folder = root): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    if (entry.isDirectory()) {
      const made = ['node_modules', 'target', 'dist', '.git', '.cache'].includes(entry.name)
      return made ? [] : fileNames(join(folder, entry.name))
    }
    return [entry.name]
  })
}

/** What a document puts in backticks, outside its blocks of code, cut at spaces. */
function codeWords(text: string): string[] {
  const prose = text.replace(/^```[\s\S]*?^```/gm, '')
  return [...prose.matchAll(/`([^`\n]+)`/g)].flatMap(([, span]) => span!.split(/\s+/))
}

const isPath = (word: string) => /^[\w.-]+(\/[\w.*-]*)+$/.test(word)
const isFile = (word: string) => /^[\w-]+(\.[\w-]+)*\.(ts|js|mjs|rs|md|json|toml|py)$/.test(word)
/** The part of `src/layers/*` before its asterisk. */
const beforeAsterisk = (path: string) => path.replace(/\/?[^/]*\*.*$/, '')

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

describe('README.md', () => {
  const text = read('README.md')
  const folder = mkdtempSync(join(tmpdir(), 'spikenorm-'))
  afterAll(() => rmSync(folder, { recursive: true }))
  const blocks = [...text.matchAll(/^```ts\n([\s\S]*?)^```/gm)].map(([, code]) => code!)

  it('links only to files that exist', () => {
    const links = [...text.matchAll(/\]\((?!https?:|#)([^)#]+)/g)].map(([, path]) => path!)
    expect(links.filter((path) => !existsSync(join(root, path)))).toEqual([])
  })

  it('lists every code of SpikenormError that can be matched on', () => {
    const declared = [...read('src/errors.ts').matchAll(/'(ERR_[A-Z_]+)'/g)].map(([, code]) => code!)
    // A defect of the library, which nobody should write code for.
    const codes = declared.filter((code) => code !== 'ERR_INTERNAL' && code !== 'ERR_')
    expect(codes.length).toBeGreaterThan(10)
    expect([...new Set(codes)].filter((code) => !text.includes(code))).toEqual([])
  })

  it('has TypeScript to show', () => {
    expect(blocks.length).toBeGreaterThan(0)
  })

  blocks.forEach((code, i) => {
    const title = code.split('\n').find((line) => line.trim() && !line.startsWith('import'))

    it(`block ${i + 1} compiles under the settings of the project: ${title}`, () => {
      const file = join(folder, `block${i}.mts`)
      writeFileSync(file, code)
      const config = {
        extends: join(root, 'tsconfig.json'),
        compilerOptions: {
          paths: { spikenorm: [join(root, 'src', 'index.ts')] },
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
      const source = pathToFileURL(join(root, 'src', 'index.ts')).href
      writeFileSync(file, code.replaceAll(/from 'spikenorm'/g, `from '${source}'`))
      const run = spawnSync(process.execPath, ['--import', 'tsx', file], { cwd: root, encoding: 'utf8' })
      expect(run.stderr).toBe('')
      expect(run.status).toBe(0)
      const losses = [...run.stdout.matchAll(/^\d+ (\d+\.\d+)$/gm)].map(([, loss]) => Number(loss))
      if (code.includes('loss')) {
        expect(losses.length).toBeGreaterThan(1)
        expect(losses.at(-1)!).toBeLessThan(losses[0]!)
      }
    })
  })
})
