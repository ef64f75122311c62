/** The package that this command line is part of. */
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export interface PackageOfThis {
  name: string
  version: string
  folder: string
}

/** The nearest package.json above this file that names a package: how far that is depends on what is bundled. */
export function packageOfThis(): PackageOfThis {
  let folder = dirname(fileURLToPath(import.meta.url))
  for (;;) {
    const file = join(folder, 'package.json')
    if (existsSync(file)) {
      const { name, version } = JSON.parse(readFileSync(file, 'utf8')) as Partial<PackageOfThis>
      if (name !== undefined) return { name, version: version ?? 'unknown', folder }
    }
    if (dirname(folder) === folder) return { name: 'spikenorm', version: 'unknown', folder }
    folder = dirname(folder)
  }
}
