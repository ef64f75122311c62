/** TypeScript as users have it: this project's own and the oldest that the declarations are for. */
import { copyFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from './consumers.mjs'
import { fetchedPackage } from './fetched.mjs'

/** README.md says it too. Older ones lack `Symbol.dispose`. */
const OLDEST = '5.2.2'

/** How users compile, by name. Declarations of the package are checked too, and no types but its own are there. */
const STRICT = {
  strict: true,
  noEmit: true,
  skipLibCheck: false,
  types: [],
  target: 'es2022',
  lib: ['es2022'],
}
const COMPILERS = {
  nodenext: {
    compilerOptions: { ...STRICT, module: 'nodenext', moduleResolution: 'nodenext' },
    files: ['consumer.mts', 'consumer.cts', 'same-class.mts'],
  },
  node16: {
    compilerOptions: { ...STRICT, module: 'node16', moduleResolution: 'node16' },
    files: ['consumer.mts', 'consumer.cts', 'same-class.mts'],
  },
  bundler: {
    compilerOptions: { ...STRICT, module: 'esnext', moduleResolution: 'bundler' },
    files: ['consumer.mts'],
  },
}

function compileWith(typescript, name, folder) {
  const tsc = join(typescript, 'bin', 'tsc')
  return Object.entries(COMPILERS).map(([resolution, config]) => {
    const file = join(folder, `tsconfig.${resolution}.json`)
    writeFileSync(file, JSON.stringify(config))
    const result = run(process.execPath, [tsc, '-p', file], folder)
    return { name: `${name}, ${resolution}`, ...result }
  })
}

/** Compiles the consumers of test/package/. @returns what each compiler says, and sentences about those not there */
export function compile(root, folder) {
  for (const name of new Set(Object.values(COMPILERS).flatMap(({ files }) => files)))
    copyFileSync(join(root, 'test', 'package', name), join(folder, name))
  const oldest = fetchedPackage(join(root, '.cache', 'typescript'), 'typescript', OLDEST)
  const compiled = compileWith(join(root, 'node_modules', 'typescript'), 'TypeScript of this project', folder)
  if (oldest.reason) return { compiled, skipped: [`TypeScript ${OLDEST}: ${oldest.reason}`] }
  return {
    compiled: [...compiled, ...compileWith(oldest.folder, `TypeScript ${OLDEST}`, folder)],
    skipped: [],
  }
}
