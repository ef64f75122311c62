#!/usr/bin/env node
/**
 * Brings a clone to the state where everything runs: npm dependencies, the native addon, the TypeScript build. Each
 * step is skipped when its inputs have not changed, so that running it again costs next to nothing.
 *
 * With --dependency it is npm's script `prepare`: it builds the clone that npm makes to install from the repository's URL,
 * where npm has installed the dependencies, and leaves a developer's clone alone.
 *
 * Plain JavaScript without imports from npm: it runs before anything is installed.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { delimiter, isAbsolute, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const stamps = join(root, '.cache', 'prepared.json')
const isWindows = process.platform === 'win32'

function fail(sentence) {
  console.error(`\nspikenorm: ${sentence}`)
  process.exit(1)
}

/** Every file below `paths`, sorted. */
function files(paths) {
  return paths
    .map((path) => join(root, path))
    .filter((path) => existsSync(path))
    .flatMap((path) =>
      statSync(path).isDirectory()
        ? readdirSync(path, { recursive: true, withFileTypes: true })
            .filter((entry) => entry.isFile())
            .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
        : [path],
    )
    .sort()
}

function fingerprint(paths, extra = '') {
  const hash = createHash('sha256').update(`${process.platform} ${process.arch} ${extra}`)
  for (const file of files(paths))
    hash.update(relative(root, file)).update('\0').update(readFileSync(file)).update('\0')
  return hash.digest('hex')
}

/** What decides, beside the sources, whether the addon has kernels: crates/cuda/build.rs looks at the same. */
function kernels() {
  const check = [join(root, 'scripts', 'setup-cuda.mjs'), '--check']
  const hasCompiler = spawnSync(process.execPath, check, { stdio: 'ignore' }).status === 0
  return JSON.stringify([hasCompiler, process.env.SPIKENORM_NO_CUDA, process.env.SPIKENORM_CUDA_ARCHS])
}

function run(command, args, sentence, options = {}) {
  const result = spawnSync(command, args, { cwd: root, stdio: 'inherit', shell: isWindows, ...options })
  if (result.error || result.status !== 0) fail(sentence)
}

function works(command) {
  const result = spawnSync(command, ['--version'], { stdio: 'ignore', shell: isWindows })
  return !result.error && result.status === 0
}

function checkTools() {
  const [major] = process.versions.node.split('.').map(Number)
  if (major < 20)
    fail(`Node 20 or later is needed, this is ${process.version}: install it from https://nodejs.org`)
  // Where rustup puts cargo when the shell has not been restarted since.
  process.env.PATH = `${process.env.PATH}${delimiter}${join(homedir(), '.cargo', 'bin')}`
  if (!works('cargo')) fail('cargo was not found: install Rust 1.89 or later from https://rustup.rs')
  if (!isWindows && !['cc', 'gcc', 'clang'].some(works)) {
    fail(
      'no C compiler was found, which Rust needs for linking: install gcc (Debian: apt-get install build-essential)',
    )
  }
}

const native = [
  'Cargo.toml',
  'Cargo.lock',
  'build.rs',
  'src/native',
  'crates',
  'scripts/build-native.mjs',
  'package.json',
]
const steps = [
  {
    name: 'npm dependencies',
    inputs: ['package-lock.json'],
    isThere: () => existsSync(join(root, 'node_modules', '.bin', isWindows ? 'tsc.cmd' : 'tsc')),
    // No script of a dependency is needed here.
    run: () =>
      run(
        'npm',
        ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'],
        'npm ci failed; is the npm registry reachable?',
      ),
  },
  {
    name: 'native addon (the first build takes a few minutes)',
    inputs: native,
    // An addon that was built without nvcc is out of date when there is one.
    surroundings: kernels,
    isThere: () => readdirSync(root).some((name) => name.endsWith('.node')),
    run: () =>
      run('npm', ['run', '--silent', 'build:native'], 'the native build failed; the compiler says why above'),
  },
  {
    name: 'TypeScript build',
    inputs: [
      'src',
      'bench',
      'examples/digits',
      'test/support/reference.ts',
      'index.d.ts',
      'package.json',
      'scripts/build-dist.mjs',
      'scripts/package',
      'tsconfig.json',
      'tsconfig.build.json',
    ],
    isThere: () => existsSync(join(root, 'dist', 'index.mjs')),
    run: () => run('npm', ['run', '--silent', 'build:ts'], 'the TypeScript build failed; it says why above'),
  },
]

/** Whether npm was started in this clone, and so by a developer; elsewhere it installs the clone as a dependency. */
function isOfDeveloper() {
  const way = relative(root, process.env.INIT_CWD ?? root)
  return !way.startsWith('..') && !isAbsolute(way)
}

const isDependency = process.argv.includes('--dependency')
if (isDependency && isOfDeveloper()) process.exit(0)
checkTools()
mkdirSync(join(root, '.cache'), { recursive: true })
const prepared = existsSync(stamps) ? JSON.parse(readFileSync(stamps, 'utf8')) : {}
for (const step of isDependency ? steps.slice(1) : steps) {
  const surroundings = step.surroundings?.()
  if (step.isThere() && prepared[step.name] === fingerprint(step.inputs, surroundings)) continue
  console.error(`spikenorm: preparing ${step.name} …`)
  step.run()
  // After the run: the native build rewrites index.d.ts.
  prepared[step.name] = fingerprint(step.inputs, surroundings)
  writeFileSync(stamps, JSON.stringify(prepared))
}
