/** What may be in the archives, and in their package.json. */
import { ASSETS, LIBRARIES, PROGRAMS } from './entries.mjs'

const DOCUMENTS = ['package.json', 'README.md', 'LICENSE']
/** Scripts that npm runs at an installation. */
const INSTALL_SCRIPTS = [
  'preinstall',
  'install',
  'postinstall',
  'prepublish',
  'preprepare',
  'prepare',
  'postprepare',
]
const DEPENDENCIES = ['dependencies', 'bundleDependencies', 'bundledDependencies']

/** Files that must be in the main package. */
const REQUIRED = [
  ...DOCUMENTS,
  'CHANGELOG.md',
  'dist/package.json',
  ...Object.keys(LIBRARIES).flatMap((name) => [
    `dist/${name}.js`,
    `dist/${name}.names.js`,
    `dist/${name}.mjs`,
    `dist/${name}.d.mts`,
  ]),
  ...Object.keys(PROGRAMS).map((name) => `dist/${name}.mjs`),
  ...Object.values(ASSETS).map((file) => `dist/${file}`),
]
/** Files that may be there besides. */
const ALLOWED = [
  /^README(\.[\w-]+)?\.md$/,
  /^dist\/chunk-\w+\.m?js$/,
  /^dist\/[\w/-]+\.d\.ts$/,
  /^dist\/THIRD-PARTY-LICENSES\.txt$/,
]

function compare(files, required, allowed) {
  const names = files.map(({ path }) => path)
  const missing = required.filter((name) => !names.includes(name)).map((name) => `${name} is missing`)
  const surplus = names
    .filter((name) => !required.includes(name) && !allowed.some((pattern) => pattern.test(name)))
    .map((name) => `${name} should not be there`)
  return [...missing, ...surplus]
}

export const wrongContents = {
  main: (files) => compare(files, REQUIRED, ALLOWED),
  binary: (files, { main }) => compare(files, [...DOCUMENTS, 'THIRD-PARTY-LICENSES.txt', main], []),
}

function wrongInEach(manifest) {
  const scripts = INSTALL_SCRIPTS.filter((name) => manifest.scripts?.[name]).map(
    (name) => `has the script ${name}`,
  )
  const dependencies = DEPENDENCIES.filter((field) => manifest[field]).map((field) => `has ${field}`)
  const engines = manifest.engines?.node ? [] : ['does not say which Node it needs']
  return [...scripts, ...dependencies, ...engines].map((problem) => `${manifest.name} ${problem}`)
}

export const wrongManifest = {
  main: (manifest) => wrongInEach(manifest),
  binary(manifest, main) {
    const lacks = ['os', 'cpu'].filter((field) => !manifest[field]?.length)
    if (manifest.os?.includes('linux') && !manifest.libc?.length) lacks.push('libc')
    const engines =
      manifest.engines?.node === main.engines.node ? [] : ['has other engines than the main package']
    return [
      ...wrongInEach(manifest),
      ...[...lacks.map((field) => `does not say its ${field}`), ...engines].map(
        (problem) => `${manifest.name} ${problem}`,
      ),
    ]
  },
}
