#!/usr/bin/env node
/**
 * Gathers what scripts/gpu-check.sh needs on a machine with an NVIDIA driver and neither cargo nor npm nor network:
 * one archive in .cache/gpu-check/, and the script beside it.
 *
 * The TypeScript of src, test, bench and the demo is translated file by file, so that the tree keeps its shape and every
 * path in it holds. A small module stands in for vitest.
 */
import { spawnSync } from 'node:child_process'
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { homedir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const TARGET = join(ROOT, '.cache', 'gpu-check')
const TREE = join(TARGET, 'tree')
const ARCHIVE = join(TARGET, 'gpu-check.tar.xz')
/** What may travel to a machine that is lent. */
const MOST_BYTES = 64 * 2 ** 20
/** A Node that carries its own code and not only a start of libnode.so. */
const LEAST_NODE_BYTES = 50e6
/** Pure Python: SpikingJelly, and what its layers import beside torch and numpy. */
const PYTHON_PACKAGES = ['spikingjelly==2.0.0', 'loguru<1,>=0.7']

const HELP = `Builds and gathers what scripts/gpu-check.sh needs into .cache/gpu-check/.

  node scripts/gpu-pack.mjs [options]

  --no-build        pack what is built
  --node <path>     the Node to pack, for x86-64 Linux   (default: this one)
  --python <path>   has pip, to fetch SpikingJelly       (default: python3)
  --help`

function fail(sentence) {
  console.error(`gpu-pack: ${sentence}`)
  process.exit(1)
}

function run(command, args, options = {}) {
  const result = spawnSync(command, args, { cwd: ROOT, encoding: 'utf8', maxBuffer: 1 << 28, ...options })
  if (result.error || result.status !== 0) {
    const output = `${result.stdout ?? ''}${result.stderr ?? ''}`.trim().split('\n').slice(-20).join('\n')
    fail(`${command} ${args.join(' ')} failed: ${result.error?.message ?? output}`)
  }
  return result.stdout
}

function options() {
  try {
    const text = { type: 'string' }
    const flag = { type: 'boolean' }
    return parseArgs({ options: { 'no-build': flag, node: text, python: text, help: flag } }).values
  } catch (error) {
    fail(`${error.message}\n${HELP}`)
  }
}

/** What `cargo <args>` of crates/cuda compiles of a kind, by name. */
function build(kind, args) {
  const env = { ...process.env, CARGO_PROFILE_BENCH_LTO: 'off', CARGO_PROFILE_BENCH_CODEGEN_UNITS: '16' }
  const messages = run('cargo', [...args, '-p', 'spikenorm-cuda', '--no-run', '--message-format=json'], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env,
  })
  const built = messages
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line))
    .filter(({ target, executable }) => target?.kind?.includes(kind) && executable)
  if (built.length === 0) fail(`cargo ${args.join(' ')} built nothing`)
  return built.map(({ target, executable }) => ({ name: target.name, executable }))
}

/** Translates every .ts below a folder; copies everything else. */
async function translate(folder) {
  const { transformSync } = await import('esbuild')
  for (const entry of readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const source = join(entry.parentPath ?? entry.path, entry.name)
    const target = join(TREE, source.slice(ROOT.length))
    mkdirSync(dirname(target), { recursive: true })
    if (entry.name.endsWith('.ts') && !entry.name.endsWith('.d.ts')) {
      const { code } = transformSync(readFileSync(source, 'utf8'), {
        loader: 'ts',
        format: 'esm',
        target: 'es2022',
        sourcefile: entry.name,
      })
      writeFileSync(target.replace(/\.ts$/, '.js'), code)
    } else {
      copyFileSync(source, target)
    }
  }
}

async function packTests() {
  const { buildSync } = await import('esbuild')
  const module = join(TREE, 'node_modules', 'vitest')
  mkdirSync(module, { recursive: true })
  buildSync({
    entryPoints: [join(ROOT, 'scripts', 'gpu-check', 'vitest.mjs')],
    outfile: join(module, 'index.mjs'),
    bundle: true,
    platform: 'node',
    format: 'esm',
    logLevel: 'error',
  })
  writeFileSync(join(module, 'package.json'), '{"name":"vitest","type":"module","exports":"./index.mjs"}\n')
  for (const name of ['fast-check', 'pure-rand']) {
    const from = join(ROOT, 'node_modules', name)
    if (existsSync(from))
      cpSync(from, join(TREE, 'node_modules', name), { recursive: true, filter: isNeeded })
  }
}

const isNeeded = (path) => !/\.(map|d\.ts|d\.cts|d\.mts|md)$/.test(path)

function packPython(python) {
  const site = join(TREE, 'site')
  const args = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-deps', '--no-compile']
  const result = spawnSync(python, [...args, '--target', site, ...PYTHON_PACKAGES], { stdio: 'inherit' })
  if (result.error || result.status !== 0)
    console.error(
      `gpu-pack: ${python} -m pip could not fetch SpikingJelly; it will be missing among the peers`,
    )
}

function packNode(path) {
  const binary = realpathSync(path)
  if (statSync(binary).size < LEAST_NODE_BYTES)
    fail(`${binary} is linked against a shared libnode and cannot travel; give another with --node`)
  copyFileSync(binary, join(TREE, 'bin', 'node'))
}

function packPackage() {
  copyFileSync(join(ROOT, 'package.json'), join(TREE, 'package.json'))
  const addons = readdirSync(ROOT).filter((name) => name.endsWith('linux-x64-gnu.node'))
  if (addons.length === 0) fail('there is no addon for x86-64 Linux; run npm run build')
  for (const name of addons) copyFileSync(join(ROOT, name), join(TREE, name))
  cpSync(join(ROOT, 'dist'), join(TREE, 'dist'), { recursive: true, filter: isNeeded })
  const commit = spawnSync('git', ['rev-parse', '--short=12', 'HEAD'], { cwd: ROOT, encoding: 'utf8' })
  writeFileSync(join(TREE, 'COMMIT'), `${commit.stdout?.trim() || 'unknown'}\n`)
}

async function main() {
  const given = options()
  if (given.help) return console.log(HELP)
  process.env.PATH = `${process.env.PATH}${delimiter}${join(homedir(), '.cargo', 'bin')}`
  if (!given['no-build']) run(process.execPath, ['scripts/prepare.mjs'], { stdio: 'inherit' })
  const deviceTests = build('test', ['test', '--test', 'device*'])
  const benches = build('bench', ['bench', '--bench', 'plans'])
  rmSync(TARGET, { recursive: true, force: true })
  mkdirSync(join(TREE, 'bin'), { recursive: true })
  packPackage()
  for (const folder of ['src', 'test', 'bench', 'examples']) await translate(folder)
  await packTests()
  packNode(given.node ?? process.execPath)
  mkdirSync(join(TREE, 'bin', 'device-tests'))
  const programs = [
    ...deviceTests.map(({ name, executable }) => ({ executable, target: join('device-tests', name) })),
    ...benches.map(({ name, executable }) => ({ executable, target: name })),
  ]
  for (const { executable, target } of programs) {
    copyFileSync(executable, join(TREE, 'bin', target))
    // Debug symbols are most of it, and compute-sanitizer names kernels without them.
    spawnSync('strip', ['--strip-debug', join(TREE, 'bin', target)])
  }
  packPython(given.python ?? 'python3')
  copyFileSync(join(ROOT, 'scripts', 'gpu-check.sh'), join(TARGET, 'gpu-check.sh'))
  run('tar', ['-C', TREE, '-cJf', ARCHIVE, '.'], { env: { ...process.env, XZ_OPT: '-6 -T0' } })
  rmSync(TREE, { recursive: true })
  const { size } = statSync(ARCHIVE)
  console.log(`${ARCHIVE}: ${(size / 2 ** 20).toFixed(1)} MiB`)
  if (size > MOST_BYTES) fail(`the archive is over ${MOST_BYTES / 2 ** 20} MiB`)
}

await main()
