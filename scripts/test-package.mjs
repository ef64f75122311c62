#!/usr/bin/env node
/**
 * `npm run test:package`: the package as a new user gets it. Packs the main package and the one with this machine's
 * binary, installs both from their archives into an empty folder, and uses them there.
 */
import { existsSync, mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { useBundlers } from './package/bundlers.mjs'
import { lintPackage } from './package/checkers.mjs'
import { compile } from './package/compilers.mjs'
import {
  askForHelp,
  coldStart,
  install,
  installed,
  installFrom,
  PROGRAMS,
  runProgram,
} from './package/consumers.mjs'
import { wrongContents, wrongManifest } from './package/contents.mjs'
import { wrongPaths } from './package/paths.mjs'
import { inRestrictedProcesses, loadInVain } from './package/processes.mjs'
import { startRegistry } from './package/registry.mjs'
import { runtimes } from './package/runtimes.mjs'
import { isForThisMachine, pack, stage } from './package/stage.mjs'
import { wrongVersions } from './package/versions.mjs'

const HELP = `Packs spikenorm with this machine's binary, installs it as a new user would and uses it.

  npm run test:package [-- options]

  --binaries <folder>   has the binary, or folders with it           (default: the project's root)
  --keep                leave the folder it works in, and say where it is
  --json <file>         write the numbers there
  --help

What is built is used as it is; npm run build builds. Nothing comes from a registry but other releases of Node and
TypeScript, kept in .cache; where there are none, that part is skipped and said so. Exit status: 0 all good, 1 something is wrong.`

const root = fileURLToPath(new URL('..', import.meta.url))
let failures = 0

function report(claim, problems) {
  const wrong = problems.filter(Boolean)
  console.log(`${wrong.length === 0 ? 'ok    ' : 'FAILED'}  ${claim}`)
  for (const problem of wrong) console.log(`        ${problem.split('\n').join('\n        ')}`)
  if (wrong.length > 0) failures++
}

function options() {
  const text = { type: 'string' }
  const flag = { type: 'boolean' }
  try {
    return parseArgs({ options: { binaries: text, keep: flag, json: text, help: flag } }).values
  } catch (error) {
    console.error(`test:package: ${error.message}\n${HELP}`)
    process.exit(2)
  }
}

const outputOf = ({ isGood, output }) => (isGood ? undefined : output || 'it failed and said nothing')
const mebibytes = (bytes) => `${(bytes / 2 ** 20).toFixed(2)} MiB`

/** Stages and packs. @returns the staged packages, this machine's among them, and the archives */
function packAll(work) {
  const staged = stage({
    root,
    out: join(work, 'stage'),
    binaries: [given.binaries ? resolve(given.binaries) : root],
  })
  const host = staged.platforms.find(({ manifest }) => isForThisMachine(manifest))
  if (!host) throw new Error(`no package of binaries is for ${process.platform}-${process.arch}`)
  if (!host.hasBinary) throw new Error(`there is no ${host.manifest.main}; run npm run build`)
  mkdirSync(join(work, 'archives'))
  const main = pack(staged.main.folder, join(work, 'archives'))
  const binary = pack(host.folder, join(work, 'archives'))
  return { staged, host, main, binary }
}

function checkArchives({ staged, host, main, binary }) {
  report('versions agree everywhere', wrongVersions(root, staged))
  report(`${main.filename} holds what is intended and nothing else`, wrongContents.main(main.files))
  report(
    `${binary.filename} holds the binary and nothing else`,
    wrongContents.binary(binary.files, host.manifest),
  )
  report('no file names a folder of the machine that built it', [
    ...wrongPaths(root, join(staged.main.folder, 'dist')),
    ...wrongPaths(root, host.folder),
  ])
  report('no install script, no dependency; engines, os, cpu and libc are set', [
    ...wrongManifest.main(staged.main.manifest),
    ...staged.platforms.flatMap(({ manifest }) => wrongManifest.binary(manifest, staged.main.manifest)),
  ])
}

function useInstalled(folder, { path, version }, manifest) {
  for (const program of PROGRAMS)
    report(`Node ${version}: ${program}`, [outputOf(runProgram(root, folder, path, program))])
  for (const { command, ...result } of askForHelp(folder, path, manifest))
    report(`Node ${version}: ${command} --help`, [outputOf(result)])
  const times = coldStart(root, folder, path)
  const of = (name) => times[name].toFixed(0)
  console.log(
    `        first forward ${of('forward')} ms after the start of the process: Node ${of('bare')}, import to ${of('imported')}`,
  )
  return times
}

/** The main package alone, as where npm left the optional dependencies out. */
function checkWithoutBinary(work, { main, host }, runtimes) {
  const folder = join(work, 'without-binary')
  const { isGood, output } = install(folder, [main.archive])
  const words = ['its native binary for', `npm install ${host.name}`, 'build it from source']
  for (const { path, version } of runtimes)
    report(`Node ${version}: without the binary, the error says what to do, and a program can go on`, [
      ...(isGood ? loadInVain({ root, folder, node: path, words }) : [output]),
    ])
}

/** As a new user: by name from a registry, where npm chooses among the platforms' packages. */
async function checkByName(work, { staged, main, binary, host }, node) {
  const registry = await startRegistry([
    { manifest: staged.main.manifest, packed: main },
    ...staged.platforms.map(({ manifest }) => ({
      manifest,
      packed: manifest.name === host.name ? binary : undefined,
    })),
  ])
  try {
    const folder = join(work, 'by-name')
    report('by name from a registry, npm installs the binary of this machine and no other', [
      outputOf(installFrom(registry.url, folder, main.name)),
      ...installed.unexpected(folder, [main.name, host.name]),
      outputOf(runProgram(root, folder, node, 'first-program.mjs')),
    ])
  } finally {
    await registry.stop()
  }
}

async function testPackage(work) {
  const packed = packAll(work)
  const { main, binary, host } = packed
  checkArchives(packed)
  for (const [name, problems] of lintPackage(root, main.archive))
    report(`${name} has nothing to say`, problems)
  const folder = join(work, 'project')
  report('both install from their archives, offline and without scripts', [
    outputOf(install(folder, [main.archive, binary.archive])),
    ...installed.unexpected(folder, [main.name, host.name]),
  ])
  const { found, skipped } = runtimes(join(root, '.cache', 'node'))
  const start = Object.fromEntries(
    found.map((runtime) => [runtime.version, useInstalled(folder, runtime, packed.staged.main.manifest)]),
  )
  for (const sentence of skipped) console.log(`SKIPPED ${sentence}`)
  for (const { path, version } of found)
    for (const [claim, problems] of inRestrictedProcesses({ root, folder, node: path, version }))
      report(`Node ${version}: ${claim}`, problems)
  const typescript = compile(root, folder)
  for (const compiled of typescript.compiled) report(compiled.name, [outputOf(compiled)])
  for (const sentence of typescript.skipped) console.log(`SKIPPED ${sentence}`)
  checkWithoutBinary(work, packed, found)
  const bundles = { root, project: folder, work, binary: join(host.folder, host.manifest.main) }
  for (const [claim, problems] of await useBundlers({ ...bundles, node: found[0].path }))
    report(claim, problems)
  await checkByName(work, packed, found[0].path)
  const sizes = Object.fromEntries(
    [main, binary].map(({ name, size, unpackedSize }) => [name, { packed: size, unpacked: unpackedSize }]),
  )
  for (const [name, { packed: size, unpacked }] of Object.entries(sizes))
    console.log(`        ${name}: ${mebibytes(size)} packed, ${mebibytes(unpacked)} unpacked`)
  return { sizes, start }
}

const given = options()
if (given.help) {
  console.log(HELP)
  process.exit(0)
}
if (!existsSync(join(root, 'dist', 'index.mjs'))) {
  console.error('test:package: there is no dist/; run npm run build')
  process.exit(1)
}
// Outside the project, whose node_modules would be found from within.
const work = mkdtempSync(join(realpathSync(tmpdir()), 'spikenorm-package-'))
try {
  const numbers = await testPackage(work)
  if (given.json) writeFileSync(given.json, `${JSON.stringify(numbers, null, 2)}\n`)
} catch (error) {
  report('the test runs to its end', [error.message])
} finally {
  if (given.keep) console.log(`        left in ${work}`)
  else rmSync(work, { recursive: true, force: true })
}
process.exit(failures === 0 ? 0 : 1)
