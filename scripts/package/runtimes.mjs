/** The Node releases that the package is tried on: this one, and others that npm brings as packages. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { fetchedPackage } from './fetched.mjs'

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
  const { folder, reason } = fetchedPackage(cache, name, wanted)
  if (reason) return { reason }
  const path = join(folder, 'bin', WINDOWS ? 'node.exe' : 'node')
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
