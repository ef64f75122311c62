/** Packages of a registry that only these tests need, each fetched once into a folder of its own. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const WINDOWS = process.platform === 'win32'
const QUIET = [
  '--no-save',
  '--no-package-lock',
  '--no-audit',
  '--no-fund',
  '--ignore-scripts',
  '--loglevel=error',
]

/** @returns the package's folder, or why there is none */
export function fetchedPackage(cache, name, wanted) {
  const project = join(cache, wanted)
  const folder = join(project, 'node_modules', name)
  if (existsSync(join(folder, 'package.json'))) return { folder }
  mkdirSync(project, { recursive: true })
  writeFileSync(join(project, 'package.json'), '{ "private": true }\n')
  const run = spawnSync('npm', ['install', ...QUIET, `${name}@${wanted}`], {
    cwd: project,
    encoding: 'utf8',
    shell: WINDOWS,
  })
  if (run.status === 0) return { folder }
  return { reason: `npm has no ${name}@${wanted} here: ${run.stderr.trim().split('\n')[0]}` }
}
