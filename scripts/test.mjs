#!/usr/bin/env node
/**
 * `npm test`: everything. `npm test -- --rust` or `npm test -- --ts [vitest arguments]` runs one half.
 */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { emulatedDriver } from './emulated-driver.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const [first, ...rest] = process.argv.slice(2)
if (first === '--help' || first === '-h') {
  console.log(`Usage: npm test [-- --rust [cargo test arguments] | --ts [vitest arguments]]

Where there is no NVIDIA driver on Linux, the CUDA tests run on an emulated one (crates/cuda/README.md), which needs
a C++ compiler. SPIKENORM_NO_EMULATION=1 skips them instead.`)
  process.exit(0)
}
if (first !== undefined && first !== '--rust' && first !== '--ts') {
  console.error(`npm test: expected --rust, --ts or nothing, got '${first}'; see npm test -- --help`)
  process.exit(2)
}
process.env.PATH = `${process.env.PATH}${delimiter}${join(homedir(), '.cargo', 'bin')}`

function run(command, args) {
  const options = { cwd: root, stdio: 'inherit', shell: process.platform === 'win32' }
  const result = spawnSync(command, args, options)
  if (result.error || result.status !== 0) process.exit(result.status ?? 1)
}

/** Whether the dynamic linker finds NVIDIA's driver. */
function hasNvidiaDriver() {
  if (process.platform === 'win32')
    return existsSync(join(process.env.SystemRoot ?? 'C:/Windows', 'System32', 'nvcuda.dll'))
  const folders = (process.env.LD_LIBRARY_PATH ?? '').split(':').filter(Boolean)
  if ([...folders, '/usr/lib', '/lib'].some((folder) => existsSync(join(folder, 'libcuda.so.1')))) return true
  return ['ldconfig', '/sbin/ldconfig'].some((ldconfig) => {
    const cache = spawnSync(ldconfig, ['-p'], { encoding: 'utf8' })
    return cache.status === 0 && cache.stdout.includes('libcuda.so.1')
  })
}

/** Lets the tests find a CUDA driver, and says which. */
async function chooseDriver() {
  if (hasNvidiaDriver()) return
  if (process.env.SPIKENORM_NO_EMULATION) {
    console.error('CUDA: no NVIDIA driver here, and SPIKENORM_NO_EMULATION is set; CUDA tests are skipped')
    return
  }
  const { folder, reason } = await emulatedDriver()
  if (folder === null) {
    console.error(`CUDA: no NVIDIA driver here, and ${reason}; CUDA tests are skipped`)
    return
  }
  console.error('CUDA: no NVIDIA driver here; kernels run on the emulated one')
  process.env.LD_LIBRARY_PATH = [folder, process.env.LD_LIBRARY_PATH].filter(Boolean).join(':')
}

/** Tests of the CPU backend as processors without AVX2 run it: on one of 2008, which QEMU makes of this one. */
function testBaseline() {
  if (process.platform !== 'linux' || process.arch !== 'x64') return
  if (spawnSync('qemu-x86_64', ['--version']).error) {
    console.error(
      'CPU: qemu-x86_64 is not here (Debian: qemu-user); what runs on processors without AVX2 is not tested',
    )
    return
  }
  console.error('CPU: the backend again, on an emulated processor without AVX2')
  process.env.CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER = 'qemu-x86_64 -cpu Nehalem'
  run('cargo', ['test', '--quiet', '-p', 'spikenorm-cpu', '--lib'])
  delete process.env.CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER
}

await chooseDriver()
if (first !== '--ts') {
  run('cargo', ['test', '--quiet', ...rest])
  if (rest.length === 0) testBaseline()
}
if (first !== '--rust') run('npx', ['vitest', 'run', ...rest])
