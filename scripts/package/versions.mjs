/** The version stands in several files, because npm and cargo each read their own. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { readJson } from './stage.mjs'

/** Every place of the version, by name. `staged` is what stage() returns. */
export function versions(root, staged) {
  const read = (name) => readFileSync(join(root, name), 'utf8')
  const found = { 'package.json': readJson(join(root, 'package.json')).version }
  const lock = readJson(join(root, 'package-lock.json'))
  found['package-lock.json'] = lock.version
  found['package-lock.json, packages'] = lock.packages[''].version
  found['Cargo.toml'] = read('Cargo.toml').match(/\[workspace\.package\]\s*version = "([^"]+)"/)?.[1]
  for (const [, name, version] of read('Cargo.lock').matchAll(
    /name = "(spikenorm[\w-]*)"\nversion = "([^"]+)"/g,
  ))
    found[`Cargo.lock, ${name}`] = version
  for (const { name, manifest } of staged.platforms) {
    found[`${name}/package.json`] = manifest.version
    found[`optionalDependencies, ${name}`] = staged.main.manifest.optionalDependencies[name]
  }
  return found
}

/** What is wrong with the versions, as sentences. */
export function wrongVersions(root, staged) {
  const found = versions(root, staged)
  const right = found['package.json']
  return Object.entries(found)
    .filter(([, version]) => version !== right)
    .map(([place, version]) => `${place} has version ${version}, package.json has ${right}`)
}
