/** The Node releases that the package is tried on: this one, and others that npm brings as packages. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const WINDOWS = process.platform === 'win32'
/** The oldest release that package.json's engines allow, and the newest with long-term support. */
const WANTED = ['20.0.0', '24']

const versionOf = (path) => {
  const run = spawnSync(path, ['--version'], { encoding: 'utf8' })
  return run.status === 0 ? run.stdout.trim().slice(1) : undefined
}

/** The Node of that release, fetched once into `cache`, or why there is none. */
function fetched(cache, wanted) {
  const name = `node-${WINDOWS ? 'win' : process.platform}-${process.arch}`
  const folder = join(cache, wanted)
  const path = join(folder, 'node_modules', name, 'bin', WINDOWS ? 'node.exe' : 'node')
  if (!existsSync(path)) {
    mkdirSync(folder, { recursive: true })
    writeFileSync(join(folder, 'package.json'), '{ "private": true }\n')
    const quiet = [
      '--no-save',
      '--no-package-lock',
      '--no-audit',
      '--no-fund',
      '--ignore-scripts',
      '--loglevel=error',
    ]
    const run = spawnSync('npm', ['install', ...quiet, `${name}@${wanted}`], {
      cwd: folder,
      encoding: 'utf8',
      shell: WINDOWS,
    })
    if (run.status !== 0)
      return { reason: `npm has no ${name}@${wanted} here: ${run.stderr.trim().split('\n')[0]}` }
  }
  const version = versionOf(path)
  return version ? { path, version } : { reason: `${name}@${wanted} does not run on this machine` }
}

/** Runtimes that can be used, and sentences about those that cannot. */
export function runtimes(cache) {
  const own = { path: process.execPath, version: process.versions.node }
  const found = [own]
  const skipped = []
  for (const wanted of WANTED) {
    if (own.version === wanted || own.version.startsWith(`${wanted}.`)) continue
    const { reason, ...runtime } = fetched(cache, wanted)
    if (reason) skipped.push(`Node ${wanted}: ${reason}`)
    else found.push(runtime)
  }
  return { found, skipped }
}
