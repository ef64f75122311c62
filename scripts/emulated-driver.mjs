#!/usr/bin/env node
// Builds the emulated CUDA driver and prints the folder it is in, for LD_LIBRARY_PATH:
//
//   LD_LIBRARY_PATH=$(node scripts/emulated-driver.mjs) cargo test -p spikenorm-cuda --test device
//
// It is a libcuda.so.1 of the kernels compiled for the host; crates/cuda/README.md says what it can see. What has
// not changed is not compiled again.
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
} from 'node:fs'
import { availableParallelism } from 'node:os'
import { basename, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = resolve(fileURLToPath(import.meta.url), '..', '..')
const CACHE = join(ROOT, '.cache', 'emulated-driver')
const CRATE = join(ROOT, 'crates', 'cuda')
const EMULATION = join(CRATE, 'emulation')
const KERNELS = join(CRATE, 'kernels')
const COMPILER = process.env.CXX || 'c++'
const FLAGS = [
  ...['-std=c++17', '-O2', '-g1', '-ffp-contract=off', '-fPIC', '-fvisibility=hidden', '-pthread'],
  ...['-Wall', '-Wextra', '-Werror', '-Wno-unknown-pragmas', '-DSPIKENORM_EMULATION'],
  ...['-I', EMULATION, '-I', KERNELS],
]
/** A libcuda, and beside it every library that uses it. */
const LIBRARIES = [
  {
    name: 'libcuda.so.1',
    links: ['libcuda.so'],
    sources: () => [
      join(KERNELS, 'kernels.cu'),
      ...sourcesIn(EMULATION),
      ...sourcesIn(join(EMULATION, 'driver')),
    ],
  },
  { name: 'libcublas.so.13', links: ['libcublas.so'], sources: () => sourcesIn(join(EMULATION, 'blas')) },
]
/** Folders of earlier states of the sources that are kept: another checkout state may come back. */
const KEPT = 4

function sourcesIn(folder) {
  if (!existsSync(folder)) return []
  return readdirSync(folder)
    .filter((name) => name.endsWith('.cpp'))
    .sort()
    .map((name) => join(folder, name))
}

/** Every header below the two folders: any of them may be in any object. */
function headers() {
  return [EMULATION, KERNELS].flatMap((folder) =>
    readdirSync(folder, { recursive: true })
      .map(String)
      .filter((name) => /\.(h|cuh)$/.test(name))
      .sort()
      .map((name) => join(folder, name)),
  )
}

function fingerprint(files, extra) {
  const hash = createHash('sha256').update(extra)
  for (const file of files)
    hash.update(relative(ROOT, file)).update('\0').update(readFileSync(file)).update('\0')
  return hash.digest('hex').slice(0, 16)
}

function compilerVersion() {
  const run = spawnSync(COMPILER, ['--version'], { encoding: 'utf8' })
  return run.status === 0 ? run.stdout : null
}

function compile(args) {
  return new Promise((done, failed) => {
    const child = spawn(COMPILER, args, { stdio: ['ignore', 'ignore', 'pipe'] })
    let messages = ''
    child.stderr.on('data', (data) => {
      messages += data
    })
    child.on('error', failed)
    child.on('close', (status) => {
      if (status === 0) done()
      else failed(new Error(`${COMPILER} ${args.at(-1)} failed:\n${messages}`))
    })
  })
}

/** Makes `path` by way of a file of this process, so that nobody ever sees half of it. */
async function make(path, args) {
  if (existsSync(path)) return
  const partial = `${path}.${process.pid}`
  await compile([...args, '-o', partial])
  renameSync(partial, path)
}

async function objects(sources, common, version) {
  const folder = join(CACHE, 'objects')
  mkdirSync(folder, { recursive: true })
  const jobs = sources.map((source) => ({
    source,
    object: join(folder, `${basename(source)}-${fingerprint([source, ...common], version)}.o`),
  }))
  const left = [...jobs]
  const worker = async () => {
    for (let job = left.shift(); job; job = left.shift())
      await make(job.object, [...FLAGS, '-x', 'c++', '-c', job.source])
  }
  await Promise.all(Array.from({ length: availableParallelism() }, worker))
  return jobs.map((job) => job.object)
}

function removeOld(folder, kept) {
  const byAge = readdirSync(folder)
    .map((name) => join(folder, name))
    .sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs)
  for (const path of byAge.slice(kept)) rmSync(path, { recursive: true, force: true })
}

/** The folder with the emulated driver, built where need be, or why there can be none. */
export async function emulatedDriver() {
  if (process.platform !== 'linux')
    return { folder: null, reason: `the emulated CUDA driver is for Linux, this is ${process.platform}` }
  const version = compilerVersion()
  if (version === null)
    return { folder: null, reason: `no C++ compiler (${COMPILER}) to emulate a CUDA driver with` }
  const common = headers()
  const libraries = LIBRARIES.map((library) => ({ ...library, sources: library.sources() })).filter(
    (library) => library.sources.length > 0,
  )
  const everything = [
    ...common,
    ...libraries.flatMap((library) => library.sources),
    fileURLToPath(import.meta.url),
  ]
  const folder = join(CACHE, 'libraries', fingerprint(everything, version))
  const isThere = libraries.every((library) => existsSync(join(folder, library.name)))
  mkdirSync(folder, { recursive: true })
  if (isThere) {
    utimesSync(folder, new Date(), new Date())
    return { folder, reason: null }
  }
  console.error('spikenorm: compiling the kernels for the emulated CUDA driver …')
  for (const { name, links, sources } of libraries) {
    const parts = await objects(sources, common, version)
    await make(join(folder, name), [
      '-shared',
      '-pthread',
      '-Wl,-rpath,$ORIGIN',
      `-Wl,-soname,${name}`,
      ...parts,
      '-ldl',
    ])
    for (const link of links) {
      if (!existsSync(join(folder, link))) symlinkSync(name, join(folder, link))
    }
  }
  removeOld(join(CACHE, 'libraries'), KEPT)
  removeOld(join(CACHE, 'objects'), KEPT * everything.length)
  return { folder, reason: null }
}

if (process.argv[1] && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  if (process.argv.includes('--help')) {
    console.log(
      'Usage: node scripts/emulated-driver.mjs\nBuilds the emulated CUDA driver and prints its folder.',
    )
  } else {
    try {
      const { folder, reason } = await emulatedDriver()
      if (folder === null) {
        console.error(`emulated-driver: ${reason}`)
        process.exitCode = 1
      } else {
        console.log(folder)
      }
    } catch (error) {
      console.error(`emulated-driver: ${error.message}`)
      process.exitCode = 1
    }
  }
}
