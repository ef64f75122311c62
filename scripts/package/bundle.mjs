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
      files[name] = await commonJs(withClassNames(code))
    } else {
      files[name.replace(/\.js$/, '.mjs')] = withRequire(withClassNames(code))
    }
  }
  const exportedBy = Object.fromEntries(
    Object.keys(libraries).map((name) => [name, [...outputs[`dist/${name}.js`].exports].sort()]),
  )
  return { files, exportedBy, licences: licencesOf(root, metafile.inputs) }
}

/** `import.meta.url` becomes the file's path, or undefined in a bundle that has no such name. */
async function commonJs(code) {
  const path = `const HERE = typeof __filename === 'undefined' ? undefined : __filename\n`
  const usesPath = code.includes('import.meta.url')
  const { code: converted } = await transform(usesPath ? path + code : code, {
    format: 'cjs',
    platform: 'node',
    target: TARGET,
    loader: 'js',
    logLevel: 'warning',
    define: { 'import.meta.url': 'HERE' },
  })
  return converted
}

/**
 * Gives classes the names that they have in the sources. esbuild calls a class that refers to itself `_Tensor`, and a
 * bundler of users may call it anything; its option keepNames would slow each call that makes a named closure.
 */
function withClassNames(code) {
  const names = [...code.matchAll(/^(?:var |let |const )?(\w+) = class\b|^class (\w+)\b/gm)].map(
    ([, assigned, declared]) => assigned ?? declared,
  )
  if (names.length === 0) return code
  const rename = `Object.defineProperty(value, 'name', { value: name, configurable: true })`
  return `${code}for (const [name, value] of Object.entries({ ${names.join(', ')} })) ${rename}\n`
}

/** CommonJS packages inside an ES module look for `require` when they load Node's own modules. */
function withRequire(code) {
  const start = code.match(/^#!.*\n/)?.[0] ?? ''
  const require =
    "import { createRequire as createRequireHere } from 'node:module'\nconst require = createRequireHere(import.meta.url)\n"
  return code.includes('__require') ? start + require + code.slice(start.length) : code
}
