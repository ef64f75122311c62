// Finds the CUDA compiler, or installs it into .cache/cuda, and prints its path.
//
//   node scripts/setup-cuda.mjs [--check] [--help]
//
// crates/cuda/build.rs looks in the same places in the same order. Nothing is installed outside the
// project and no driver is needed: compiling kernels takes nvcc alone, running them takes the driver.
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, rmSync, statSync } from 'node:fs'
import { delimiter, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '..')
const CACHE = join(ROOT, '.cache', 'cuda')
const SITE = join(CACHE, 'site')
const WINDOWS = process.platform === 'win32'
const NVCC = WINDOWS ? 'nvcc.exe' : 'nvcc'
const CACHED = join(SITE, 'nvidia', 'cu13', 'bin', NVCC)
// One release of the toolkit, in parts. What nvcc 13.0 makes loads on drivers r580 and later.
const PACKAGES = [
  'nvidia-cuda-nvcc==13.0.88',
  'nvidia-nvvm==13.0.88',
  'nvidia-cuda-crt==13.0.88',
  'nvidia-cuda-cccl==13.0.85',
  'nvidia-cuda-runtime==13.0.96',
]
const HELP = `Finds nvcc or installs it (about 270 MB) into ${join('.cache', 'cuda')}, then prints its path.

  node scripts/setup-cuda.mjs            find, else install with Python's pip
  node scripts/setup-cuda.mjs --check    only find; exit 1 where there is none
  node scripts/setup-cuda.mjs --help

Looked for in: PATH, CUDA_HOME, CUDA_PATH, ${join('.cache', 'cuda')}.`

function version(nvcc) {
  const run = spawnSync(nvcc, ['--version'], { encoding: 'utf8' })
  return run.status === 0 ? (run.stdout.match(/release ([\d.]+)/)?.[1] ?? 'unknown release') : null
}

function find() {
  const homes = [process.env.CUDA_HOME, process.env.CUDA_PATH]
    .filter(Boolean)
    .map((home) => join(home, 'bin'))
  const folders = [...(process.env.PATH ?? '').split(delimiter).filter(Boolean), ...homes]
  const candidates = [...folders.map((folder) => join(folder, NVCC)), CACHED]
  return candidates.find((path) => existsSync(path) && statSync(path).isFile() && version(path) !== null)
}

function fail(message) {
  console.error(`setup-cuda: ${message}`)
  process.exit(1)
}

function pip() {
  const python = WINDOWS ? 'python' : 'python3'
  const probe = spawnSync(python, ['-m', 'pip', '--version'], { encoding: 'utf8' })
  if (probe.error)
    fail(
      `${python} is not on PATH; it is needed to install nvcc. Or install the CUDA toolkit and set CUDA_HOME.`,
    )
  if (probe.status === 0) return [python, ['-m', 'pip']]
  console.error(`setup-cuda: ${python} has no pip, making a virtual environment for it`)
  const venv = join(CACHE, 'venv')
  const made = spawnSync(python, ['-m', 'venv', venv], { stdio: 'inherit' })
  if (made.status !== 0) fail(`${python} -m venv failed; install pip or venv for ${python} and run again.`)
  return [WINDOWS ? join(venv, 'Scripts', 'python.exe') : join(venv, 'bin', 'python'), ['-m', 'pip']]
}

function install() {
  if (process.platform !== 'linux' && !WINDOWS)
    fail(`the compiler packages are for Linux and Windows, this is ${process.platform}.`)
  mkdirSync(CACHE, { recursive: true })
  // A folder left half done by an interrupted run is not worth repairing.
  rmSync(SITE, { recursive: true, force: true })
  const [python, module] = pip()
  console.error(`setup-cuda: installing into ${SITE} (about 270 MB): ${PACKAGES.join(' ')}`)
  // One command for all: they share the folder nvidia/, which a second --target install would replace.
  const args = [
    ...module,
    'install',
    '--disable-pip-version-check',
    '--no-deps',
    '--target',
    SITE,
    ...PACKAGES,
  ]
  const run = spawnSync(python, args, {
    stdio: ['ignore', 2, 2],
    env: { ...process.env, PIP_ROOT_USER_ACTION: 'ignore' },
  })
  if (run.status !== 0)
    fail(`pip could not install the compiler (exit ${run.status ?? run.signal}); see its message above.`)
  if (!existsSync(CACHED)) fail(`the packages came without ${CACHED}.`)
  if (!WINDOWS) execFileSync('chmod', ['+x', CACHED])
}

const flags = process.argv.slice(2)
if (flags.includes('--help')) {
  console.log(HELP)
} else {
  const unknown = flags.find((flag) => flag !== '--check')
  if (unknown) fail(`unknown option ${unknown}\n${HELP}`)
  let nvcc = find()
  if (!nvcc && flags.includes('--check'))
    fail('no nvcc on PATH, in CUDA_HOME, CUDA_PATH or .cache/cuda; run it without --check to install one.')
  if (!nvcc) {
    install()
    nvcc = find()
    if (!nvcc) fail(`${CACHED} does not run.`)
  }
  console.error(`setup-cuda: nvcc ${version(nvcc)}`)
  console.log(nvcc)
}
