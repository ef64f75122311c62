/**
 * Lays out what is published: the main package as it is on the registry, and one package per platform below npm/, as
 * `napi create-npm-dirs` makes them.
 *
 * The optional dependencies are added here and not in the project's package.json: they exist on the registry only after
 * the release, and a clone that asked for them would not install before it.
 */
import { spawnSync } from 'node:child_process'
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'

const WINDOWS = process.platform === 'win32'
/** Fields that only developers need; `private` keeps them from publishing the project itself, without its binaries. */
const UNPUBLISHED = ['private', 'scripts', 'devDependencies', 'napi']
const DOCUMENTS = /^(README(\.[\w-]+)?\.md|CHANGELOG\.md|LICENSE)$/

export const readJson = (file) => JSON.parse(readFileSync(file, 'utf8'))
const writeJson = (file, value) => writeFileSync(file, `${JSON.stringify(value, null, 2)}\n`)

/** Whether a package with `os`, `cpu` and `libc` is for this machine. */
export function isForThisMachine({ os, cpu, libc }) {
  if (!os.includes(process.platform) || !cpu.includes(process.arch)) return false
  if (!libc) return true
  const { glibcVersionRuntime } = process.report.getReport().header
  return libc.includes(glibcVersionRuntime ? 'glibc' : 'musl')
}

/** Provenance is accepted only for a package that names the repository it was built in. */
function repository(manifest) {
  const { GITHUB_REPOSITORY, GITHUB_SERVER_URL = 'https://github.com' } = process.env
  if (manifest.repository || !GITHUB_REPOSITORY) return manifest.repository
  return { type: 'git', url: `git+${GITHUB_SERVER_URL}/${GITHUB_REPOSITORY}.git` }
}

function createPlatformPackages(root, out) {
  const napi = join(root, 'node_modules', '.bin', WINDOWS ? 'napi.cmd' : 'napi')
  const run = spawnSync(napi, ['create-npm-dirs', '--cwd', out], { encoding: 'utf8', shell: WINDOWS })
  if (run.status !== 0)
    throw new Error(`napi create-npm-dirs failed: ${run.error?.message ?? run.stderr + run.stdout}`)
}

/** The binary of one platform, wherever below the folders it lies. */
function findBinary(folders, name) {
  for (const folder of folders.filter((each) => existsSync(each))) {
    const path = join(folder, name)
    if (existsSync(path)) return path
    // Artifacts of a workflow lie in a folder each.
    for (const entry of readdirSync(folder, { withFileTypes: true }))
      if (entry.isDirectory() && existsSync(join(folder, entry.name, name)))
        return join(folder, entry.name, name)
  }
  return undefined
}

/**
 * @param root the project
 * @param out the folder to lay it out in; emptied first
 * @param binaries folders to look for spikenorm.PLATFORM.node in
 * @returns the main package and the platform packages, each with its folder, its manifest and whether its binary was found
 */
export function stage({ root, out, binaries }) {
  rmSync(out, { recursive: true, force: true })
  mkdirSync(out, { recursive: true })
  const manifest = readJson(join(root, 'package.json'))
  const source = repository(manifest)
  if (source) manifest.repository = source
  writeJson(join(out, 'package.json'), manifest)
  createPlatformPackages(root, out)
  const platforms = readdirSync(join(out, 'npm')).map((name) => {
    const folder = join(out, 'npm', name)
    const own = readJson(join(folder, 'package.json'))
    own.files.push('THIRD-PARTY-LICENSES.txt')
    writeJson(join(folder, 'package.json'), own)
    const binary = findBinary(binaries, own.main)
    if (binary) copyFileSync(binary, join(folder, own.main))
    for (const notices of ['LICENSE', 'THIRD-PARTY-LICENSES.txt'])
      copyFileSync(join(root, notices), join(folder, notices))
    return { name: own.name, folder, manifest: own, hasBinary: binary !== undefined }
  })
  const published = Object.fromEntries(
    Object.entries(manifest).filter(([field]) => !UNPUBLISHED.includes(field)),
  )
  // Binaries have packages of their own; only an installation from the repository's URL brings one in this.
  published.files = manifest.files.filter((name) => name !== '*.node')
  published.optionalDependencies = {
    ...manifest.optionalDependencies,
    ...Object.fromEntries(platforms.map(({ manifest: { name, version } }) => [name, version])),
  }
  writeJson(join(out, 'package.json'), published)
  cpSync(join(root, 'dist'), join(out, 'dist'), { recursive: true })
  for (const name of readdirSync(root).filter((each) => DOCUMENTS.test(each)))
    copyFileSync(join(root, name), join(out, name))
  return { main: { name: manifest.name, folder: out, manifest: published }, platforms }
}

/** Packs a staged package. @returns the archive and what npm says is in it. */
export function pack(folder, into) {
  const args = ['pack', folder, '--json', '--ignore-scripts', '--pack-destination', into]
  const run = spawnSync('npm', args, { encoding: 'utf8', shell: WINDOWS, cwd: into })
  if (run.status !== 0) throw new Error(`npm pack ${folder} failed: ${run.error?.message ?? run.stderr}`)
  const [report] = Object.values(JSON.parse(run.stdout))
  return { ...report, archive: join(into, report.filename) }
}
