/** What publint and arethetypeswrong say about an archive. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'

const CHECKERS = {
  'publint --strict': (archive) => ['publint', ['run', archive, '--strict']],
  // Without the resolution of before Node 16, which knows no exports and so nothing but the main entry.
  'attw --pack': (archive) => [
    'attw',
    [archive, '--profile', 'node16', '--no-emoji', '--no-color', '--format', 'ascii'],
  ],
}
const WINDOWS = process.platform === 'win32'

/** @returns [name, problems] of each */
export function lintPackage(root, archive) {
  return Object.entries(CHECKERS).map(([name, commandFor]) => {
    const [command, args] = commandFor(archive)
    const path = join(root, 'node_modules', '.bin', WINDOWS ? `${command}.cmd` : command)
    const run = spawnSync(path, args, { cwd: root, encoding: 'utf8', shell: WINDOWS })
    if (run.error) return [name, [`${command} does not run: ${run.error.message}`]]
    return [name, run.status === 0 ? [] : [`${run.stdout}${run.stderr}`.trim()]]
  })
}
