// Running the command as its users do: in a process of its own.

import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished } from 'vitest'
import { saveSafetensors, type Tensor } from '../../src/index.js'

export const ROOT = fileURLToPath(new URL('../../', import.meta.url))
export const FIXTURES = join(ROOT, 'test', 'fixtures')
const TSX = import.meta.resolve('tsx')

export interface Outcome {
  status: number | null
  stdout: string
  stderr: string
}

export interface Surroundings {
  /** Added to the environment; undefined takes a variable away. */
  env?: Record<string, string | undefined>
  cwd?: string
  /** The file to run, instead of the command in src/. */
  main?: string
}

export function spikenorm(args: readonly string[], { env = {}, cwd, main }: Surroundings = {}): Outcome {
  const file = main ?? join(ROOT, 'src', 'cli', 'main.ts')
  const whole: NodeJS.ProcessEnv = { ...process.env, ...env }
  for (const [name, value] of Object.entries(env)) if (value === undefined) delete whole[name]
  const run = spawnSync(process.execPath, ['--import', TSX, file, ...args], {
    encoding: 'utf8',
    env: whole,
    cwd: cwd ?? ROOT,
    timeout: 60_000,
  })
  if (run.error) throw run.error
  return { status: run.status, stdout: run.stdout, stderr: run.stderr }
}

/** An empty folder that is gone after the test. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'spikenorm-cli-'))
  onTestFinished(() => {
    rmSync(folder, { recursive: true, force: true })
  })
  return folder
}

/** What `convert --json` prints, with the exit status. */
export function converted(...args: string[]) {
  const { status, stdout, stderr } = spikenorm(['convert', ...args, '--json'])
  expect(stdout, stderr).toMatch(/^\{/)
  return { status, stderr, ...JSON.parse(stdout) }
}

/** A file of these tensors in a folder of the test. */
export function fileOf(dict: Record<string, Tensor>): string {
  const path = join(temporaryFolder(), 'given.safetensors')
  saveSafetensors(path, dict)
  return path
}
