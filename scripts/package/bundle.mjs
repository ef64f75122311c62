/**
 * Bundles libraries and programs in one go, so that what they share lies in one chunk and is one instance.
 *
 * esbuild cuts ES modules into chunks but not CommonJS, so it cuts first and each file that a library needs is turned
 * into CommonJS afterwards. What only programs need stays ES modules.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { basename, join, relative } from 'node:path'
import { build, transform } from 'esbuild'

const TARGET = 'node20'
const LOADER = 'index.js'
const LOADER_BASE = 'createRequire(import.meta.url)'

/**
 * napi's loader: bundled as if it still stood in the package's root, where a build from source leaves the binary, and
 * with an error that says what to do.
 */
const addon = (root) => ({
  name: 'addon',
  setup(builder) {
    const loader = join(root, LOADER)
    builder.onResolve({ filter: /^(\.\.?\/)+index\.js$/ }, ({ path, resolveDir, namespace }) => {
      if (join(resolveDir, path) !== loader) return undefined
      return { path: loader, namespace: namespace === 'addon' ? 'file' : 'addon' }
    })
    builder.onLoad({ filter: /./, namespace: 'addon' }, () => ({
      resolveDir: root,
      contents: `
        import { missingAddon } from './src/missing-addon.js'
        try {
          module.exports = require('./${LOADER}')
        } catch (error) {
          throw missingAddon(error)
        }`,
    }))
    builder.onLoad({ filter: /[\\/]index\.js$/ }, ({ path }) => {
      if (path !== loader) return undefined
      const code = readFileSync(path, 'utf8')
      if (!code.includes(LOADER_BASE)) throw new Error(`${LOADER} has no ${LOADER_BASE} to put right`)
      return { contents: code.replace(LOADER_BASE, `createRequire(__dirname + '/../${LOADER}')`) }
    })
  },
})

/** Every file that `entries` load, directly or not, by the metafile's names. */
function reachable(outputs, entries) {
  const seen = new Set()
  const waiting = [...entries]
  while (waiting.length > 0) {
    const name = waiting.pop()
    if (seen.has(name) || !(name in outputs)) continue
    seen.add(name)
    waiting.push(...outputs[name].imports.filter(({ external }) => !external).map(({ path }) => path))
  }
  return seen
}

const isPackage = (path) => path.startsWith('node_modules/')
const packageOf = (path) => path.match(/^(?:.*\/)?node_modules\/((?:@[^/]+\/)?[^/]+)\//)?.[1]

/** The licences of packages that are in the bundles; an error for one that has none. */
function licencesOf(root, inputs) {
  const names = [...new Set(Object.keys(inputs).filter(isPackage).map(packageOf))].sort()
  const texts = names.map((name) => {
    const folder = join(root, 'node_modules', name)
    const file = readdirSync(folder).find((entry) => /^(licen[cs]e|copying)/i.test(entry))
    if (!file) throw new Error(`${name} is bundled and has no licence file`)
    return `${name}\n\n${readFileSync(join(folder, file), 'utf8').trim()}\n`
  })
  return texts.join(`\n${'-'.repeat(80)}\n\n`)
}

/**
 * @returns the files by name, the names that each library exports, and the licences of what is bundled.
 * Libraries are NAME.js, programs NAME.mjs.
 */
export async function bundle({ root, manifest, libraries, programs }) {
  const { outputFiles, metafile } = await build({
    absWorkingDir: root,
    entryPoints: { ...libraries, ...programs },
    outdir: 'dist',
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: TARGET,
    write: false,
    metafile: true,
    chunkNames: 'chunk-[hash]',
    logLevel: 'warning',
    // The package has no dependencies: what it needs is bundled, but for what users bring.
    external: Object.keys(manifest.peerDependencies ?? {}).flatMap((name) => [name, `${name}/*`]),
    alias: Object.fromEntries(
      Object.entries(libraries).map(([name, source]) => [
        name === 'index' ? manifest.name : `${manifest.name}/${name}`,
        join(root, source),
      ]),
    ),
    plugins: [addon(root)],
  })
  const { outputs } = metafile
  const inLibraries = reachable(
    outputs,
    Object.keys(libraries).map((name) => `dist/${name}.js`),
  )
  const moved = Object.keys(outputs)
    .filter((name) => !inLibraries.has(name))
    .map((name) => basename(name))
  const files = {}
  for (const { path, text } of outputFiles) {
    const name = relative(join(root, 'dist'), path).replaceAll('\\', '/')
    let code = text
    for (const file of moved) code = code.replaceAll(`"./${file}"`, `"./${file.replace(/\.js$/, '.mjs')}"`)
    if (inLibraries.has(`dist/${name}`)) {
      const options = { format: 'cjs', platform: 'node', target: TARGET, loader: 'js', logLevel: 'warning' }
      files[name] = started((await transform(code, options)).code)
    } else {
      files[name.replace(/\.js$/, '.mjs')] = withRequire(code)
    }
  }
  const exportedBy = Object.fromEntries(
    Object.keys(libraries).map((name) => [name, [...outputs[`dist/${name}.js`].exports].sort()]),
  )
  return { files, exportedBy, licences: licencesOf(root, metafile.inputs) }
}

/**
 * Modules that esbuild starts when they are first needed are started with their file: an ES module sees of a CommonJS file
 * the values that its names have when it has run.
 */
function started(code) {
  const starts = [...code.matchAll(/^var (init_\w+) = /gm)].map(([, name]) => `${name}();\n`)
  return code + starts.join('')
}

/** CommonJS packages inside an ES module look for `require` when they load Node's own modules. */
function withRequire(code) {
  const start = code.match(/^#!.*\n/)?.[0] ?? ''
  const require =
    "import { createRequire as createRequireHere } from 'node:module'\nconst require = createRequireHere(import.meta.url)\n"
  return code.includes('__require') ? start + require + code.slice(start.length) : code
}
