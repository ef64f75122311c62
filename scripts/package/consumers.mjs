/** What users of the package do, done to an installed one: programs under several releases of Node. */
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const WINDOWS = process.platform === 'win32'
export const PROGRAMS = [
  'first-program.mjs',
  'first-program.cjs',
  'class-names.mjs',
  'one-instance.mjs',
  'in-workers.mjs',
]
const COLD_STARTS = 9

/** @returns whether it succeeded, and all that it wrote */
export function run(command, args, cwd, env = process.env) {
  const options = { cwd, env, encoding: 'utf8', shell: WINDOWS && command === 'npm' }
  const result = spawnSync(command, args, options)
  const output = `${result.stdout ?? ''}${result.stderr ?? ''}`.trim()
  return { isGood: !result.error && result.status === 0, output: result.error?.message ?? output }
}

/** An empty project with the archives installed, and nothing from a registry. */
export function install(folder, archives) {
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'package.json'), '{ "private": true }\n')
  const options = ['--ignore-scripts', '--offline', '--no-audit', '--no-fund', '--loglevel=error']
  return run('npm', ['install', ...options, ...archives], folder)
}

/** The same by name, from a registry, with a cache of its own. */
export function installFrom(registry, folder, name) {
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'package.json'), '{ "private": true }\n')
  const options = ['--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error']
  const where = [`--registry=${registry}`, `--cache=${join(folder, '.npm-cache')}`]
  // A proxy that the machine needs for other registries must not be asked for this one.
  const env = { ...process.env, NO_PROXY: '127.0.0.1', no_proxy: '127.0.0.1' }
  return run('npm', ['install', ...options, ...where, name], folder, env)
}

/** Packages in the project's node_modules that should not be there, as sentences. */
export const installed = {
  unexpected(folder, names) {
    const found = readdirSync(join(folder, 'node_modules')).filter((name) => !name.startsWith('.'))
    const surplus = found.filter((name) => !names.includes(name)).map((name) => `${name} was installed too`)
    return [
      ...surplus,
      ...names.filter((name) => !found.includes(name)).map((name) => `${name} was not installed`),
    ]
  },
}

/** Runs a program of test/package/ in the project. */
export function runProgram(root, folder, node, program, env = process.env) {
  copyFileSync(join(root, 'test', 'package', program), join(folder, program))
  return run(node, [program], folder, env)
}

/** Asks each command of an installed package for its help. @returns what each says, by name */
export function askForHelp(folder, node, { name, bin = {} }) {
  return Object.entries(bin).map(([command, file]) => {
    const result = run(node, [join('node_modules', name, file), '--help'], folder)
    return { command, ...result, isGood: result.isGood && result.output.length > 0 }
  })
}

const median = (values) => values.sort((a, b) => a - b)[values.length >> 1]

/** Medians, in milliseconds after the start of the process. `bare` is a program that does nothing. */
export function coldStart(root, folder, node) {
  const times = { bare: [], imported: [], forward: [] }
  // Node 20 reads these certificates before anything else, for 80 ms.
  const { NODE_EXTRA_CA_CERTS, ...env } = process.env
  for (let at = 0; at < COLD_STARTS; at++) {
    const script = 'console.log(performance.now())'
    times.bare.push(Number(run(node, ['--input-type=module', '-e', script], folder, env).output))
    const { output } = runProgram(root, folder, node, 'cold-start.mjs', env)
    const { imported, forward } = JSON.parse(output)
    times.imported.push(imported)
    times.forward.push(forward)
  }
  return Object.fromEntries(Object.entries(times).map(([name, values]) => [name, median(values)]))
}
