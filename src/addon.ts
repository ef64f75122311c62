/**
 * Loads the native binary. napi's generated loader is not used: it obeys variables that all packages of napi share, so
 * that another package's NAPI_RS_NATIVE_LIBRARY_PATH would replace this binary.
 */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { isAbsolute, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import type * as Addon from '../index.js'
import { addonError, LIBRARY_PATH, platformName } from './missing-addon.js'

/** The URL of this file in ES modules, its path in the CommonJS of dist/, and nothing in some bundles. */
const here = import.meta.url as string | undefined

function runsOnMusl(): boolean {
  if (process.platform !== 'linux') return false
  try {
    return readFileSync('/usr/bin/ldd', 'latin1').includes('musl')
  } catch {
    const { header } = process.report.getReport() as { header?: { glibcVersionRuntime?: string } }
    return header?.glibcVersionRuntime === undefined
  }
}

/** Files to look from. A bundler may leave nothing of `here`, or a folder that does not exist; the program is there. */
function origins(): string[] {
  const own = here?.startsWith('file:') ? fileURLToPath(here) : here
  return [own, process.argv[1]].filter((file): file is string => file !== undefined && isAbsolute(file))
}

/** What `require` is asked for: a build from source stands above src/ and dist/, a copy beside a bundle. */
const placesOf = (platform: string): string[] => [
  `../spikenorm.${platform}.node`,
  `./spikenorm.${platform}.node`,
  `spikenorm-${platform}`,
]

/** Whether this runs inside the package: below its package.json, or its src/. */
function isPackaged(origin: string | undefined): boolean {
  try {
    return createRequire(origin as string)('../package.json').name === 'spikenorm'
  } catch {
    return false
  }
}

/** The binary's exports. Throws `ERR_FILE` with what to do. */
export function loadAddon(): typeof Addon {
  const platform = platformName(process.platform, process.arch, runsOnMusl())
  const given = process.env[LIBRARY_PATH]
  const places = given ? [resolve(given)] : placesOf(platform)
  const found = origins()
  const failures: unknown[] = []
  for (const origin of found) {
    const load = createRequire(origin)
    for (const place of places) {
      try {
        return load(place)
      } catch (error) {
        failures.push(error)
      }
    }
  }
  const hasPermissions = 'permission' in process && process.permission !== undefined
  throw addonError({ platform, given, failures, hasPermissions, isBundled: !isPackaged(found[0]) })
}
