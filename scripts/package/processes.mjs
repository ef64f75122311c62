/** Processes in which the native binary cannot be loaded, and what they are told; variables of other packages. */
import { copyFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { run } from './consumers.mjs'

const LINE = 'SpikenormError ERR_FILE: spikenorm: '

/** Each line must be the error, on one line and with these words; then the program must have gone on. */
function wrongOutput({ isGood, output }, words) {
  const lines = output.split('\n')
  const last = lines.pop()
  const problems = []
  if (!isGood || last !== 'the program goes on') problems.push(`the program did not go on: ${output}`)
  for (const line of lines) {
    if (!line.startsWith(LINE)) problems.push(`not the error: ${line}`)
    problems.push(
      ...words.filter((each) => !line.includes(each)).map((each) => `'${each}' is not in: ${line}`),
    )
  }
  if (lines.length === 0) problems.push('it says nothing')
  return problems
}

/** Runs test/package/without-binary.* in the folder. @returns problems */
export function loadInVain({ root, folder, node, words, args = [], env = {} }) {
  return ['without-binary.mjs', 'without-binary.cjs'].flatMap((program) => {
    copyFileSync(join(root, 'test', 'package', program), join(folder, program))
    const result = run(node, [...args, program], folder, { ...process.env, ...env })
    return wrongOutput(result, words).map((problem) => `${program}: ${problem}`)
  })
}

/** The flag of the permission model, which had another name first; it forbids addons without --allow-addons. */
function permissionFlags(version) {
  const [major, minor] = version.split('.').map(Number)
  if (major > 23 || (major === 23 && minor >= 5)) return { flag: '--permission', canAllow: true }
  return { flag: '--experimental-permission', canAllow: major > 20 || minor >= 12 }
}

/**
 * Processes that forbid addons, and variables that other packages set.
 * @param folder a project in which everything is installed
 * @returns claims, each with its problems
 */
export function inRestrictedProcesses({ root, folder, node, version }) {
  const vain = (options) => loadInVain({ root, folder, node, ...options })
  const { flag, canAllow } = permissionFlags(version)
  const quiet = '--no-warnings'
  const mayRead = [quiet, flag, '--allow-fs-read=*']
  const program = 'first-program.mjs'
  copyFileSync(join(root, 'test', 'package', program), join(folder, program))
  const works = (args, env = {}) => {
    const { isGood, output } = run(node, [...args, program], folder, { ...process.env, ...env })
    return isGood ? [] : [output || 'it failed and said nothing']
  }
  const results = [
    [
      '--no-addons is told from a package that is missing',
      vain({ args: ['--no-addons'], words: ['--no-addons', 'start node without that option'] }),
    ],
    [
      `${flag} is told from a package that is missing`,
      vain({ args: mayRead, words: ['permission model', '--allow-addons'] }),
    ],
    [
      'variables that all packages of napi share are not obeyed',
      works([], {
        NAPI_RS_NATIVE_LIBRARY_PATH: join(dirname(node), 'none.node'),
        NAPI_RS_FORCE_WASI: 'error',
      }),
    ],
    [
      'SPIKENORM_NATIVE_LIBRARY_PATH is obeyed, and named where it is wrong',
      vain({
        env: { SPIKENORM_NATIVE_LIBRARY_PATH: 'none.node' },
        words: ['SPIKENORM_NATIVE_LIBRARY_PATH names none.node, which does not exist'],
      }),
    ],
  ]
  if (canAllow) results.push([`${flag} with --allow-addons: it works`, works([...mayRead, '--allow-addons'])])
  return results
}
