#!/usr/bin/env node
/**
 * `npm run build:ts`: makes dist/ of src/.
 *
 * The code is CommonJS, cut where entries share it, so that `import` and `require` get the same classes on every Node
 * from 20.0 on, and `spikenorm/x` the same as `spikenorm`: dist/x.mjs and dist/x.d.mts only name again what dist/x.js
 * and its declarations hold. Programs are ES modules, and may wait at their top level.
 *
 * The entries are in package/entries.mjs.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { basename, dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { bundle } from './package/bundle.mjs'
import { pruneDeclarations } from './package/declarations.mjs'
import { ASSETS, LIBRARIES, PROGRAMS } from './package/entries.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const dist = join(root, 'dist')

function fail(sentence) {
  console.error(`build-dist: ${sentence}`)
  process.exit(1)
}

/** Declarations of one library, as the compiler lays them out: src/tfjs/index.ts becomes dist/tfjs/index.d.ts. */
const declarationsOf = (source) => source.replace(/^src\//, './').replace(/\.ts$/, '.d.ts')

/** The entry of package.json's `exports` for one library. */
function exportOf(name) {
  return {
    import: { types: `./dist/${name}.d.mts`, default: `./dist/${name}.mjs` },
    require: { types: `./dist/${declarationsOf(LIBRARIES[name]).slice(2)}`, default: `./dist/${name}.js` },
  }
}

/** package.json is written by hand, because others read it before anything is built. */
function checkManifest({ exports, bin = {} }) {
  const wanted = Object.fromEntries(
    Object.keys(LIBRARIES).map((name) => [name === 'index' ? '.' : `./${name}`, exportOf(name)]),
  )
  wanted['./package.json'] = './package.json'
  if (JSON.stringify(exports) !== JSON.stringify(wanted))
    fail(`package.json does not fit LIBRARIES. Its "exports" must be\n${JSON.stringify(wanted, null, 2)}`)
  for (const [command, file] of Object.entries(bin)) {
    const program = file.match(/^(?:\.\/)?dist\/(.+)\.mjs$/)?.[1]
    if (!program || !(program in PROGRAMS))
      fail(`package.json's bin '${command}' is ${file}, which no line of PROGRAMS makes`)
  }
}

function compileDeclarations() {
  const tsc = join(root, 'node_modules', '.bin', process.platform === 'win32' ? 'tsc.cmd' : 'tsc')
  const options = { cwd: root, stdio: 'inherit', shell: process.platform === 'win32' }
  const { status } = spawnSync(tsc, ['-p', 'tsconfig.build.json'], options)
  if (status !== 0) fail('the declarations do not compile; tsc says why above')
}

/**
 * The ES module beside a CommonJS library: the same values under the same names. Between them is a file for Node's
 * search for names, which takes 80 ms for the library itself on Node 20. That file never throws, because Node 20 reports
 * what an imported CommonJS file throws as an unhandled rejection too, although the import was awaited.
 */
function writeFacade(name, names) {
  const here = basename(name)
  const assignments = names.map((each) => `  exports.${each} = library.${each}\n`).join('')
  writeFileSync(
    join(dist, `${name}.names.js`),
    `try {\n  const library = require('./${here}.js')\n${assignments}} catch (error) {\n  exports.loadError = error\n}\n`,
  )
  const imported = `import { loadError } from './${here}.names.js'\nif (loadError !== undefined) throw loadError\n`
  const code = `export {\n${names.map((each) => `  ${each},\n`).join('')}} from './${here}.names.js'\n`
  writeFileSync(join(dist, `${name}.mjs`), imported + code)
  const ofSource = relative(dirname(`./${name}`), declarationsOf(LIBRARIES[name])).replaceAll('\\', '/')
  const declarations = `./${ofSource}`.replace(/\.d\.ts$/, '.js')
  writeFileSync(join(dist, `${name}.d.mts`), `export * from '${declarations}'\n`)
}

const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
checkManifest(manifest)
rmSync(dist, { recursive: true, force: true })
compileDeclarations()
pruneDeclarations(dist, Object.values(LIBRARIES).map(declarationsOf))
// Below the package's "type": "module".
writeFileSync(join(dist, 'package.json'), '{ "type": "commonjs" }\n')
const { files, exportedBy, licences } = await bundle({
  root,
  manifest,
  libraries: LIBRARIES,
  programs: PROGRAMS,
})
for (const [name, code] of Object.entries(files)) writeFileSync(join(dist, name), code)
for (const name of Object.keys(LIBRARIES)) writeFacade(name, exportedBy[name])
if (licences) writeFileSync(join(dist, 'THIRD-PARTY-LICENSES.txt'), licences)
for (const [from, to] of Object.entries(ASSETS)) {
  if (!existsSync(join(root, from))) fail(`ASSETS: there is no ${from}`)
  const target = join(dist, to)
  mkdirSync(dirname(target), { recursive: true })
  writeFileSync(target, readFileSync(join(root, from)))
}
