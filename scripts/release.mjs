#!/usr/bin/env node
/**
 * Publishes the package: the platforms' packages first, then the main one that names them. `--dry-run` does everything
 * but that, and makes do with the binaries that are there.
 *
 * Running it again after a failure goes on where it stopped: what is on the registry already is left alone.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { lintPackage } from './package/checkers.mjs'
import { wrongContents, wrongManifest } from './package/contents.mjs'
import { pack, stage } from './package/stage.mjs'
import { wrongVersions } from './package/versions.mjs'

const HELP = `Publishes spikenorm and its packages of binaries to the npm registry, with provenance.

  node scripts/release.mjs [options]
  npm run release:dry-run [-- options]

  --dry-run             check, lay out and pack everything, publish nothing
  --binaries <folder>   has spikenorm.<platform>.node, or folders with them   (default: the project's root)
  --complete            a missing binary is an error in a dry run too
  --tag <name>          npm's tag            (default: latest, or next for a version such as 1.0.0-rc.1)
  --help

The archives are left in .cache/release. A real run wants a git tag v<version>, every binary, and a CHANGELOG with the
version's date; it is meant for the release workflow, whose permission id-token lets npm attest where they were built.`

const root = fileURLToPath(new URL('..', import.meta.url))
const WINDOWS = process.platform === 'win32'

function fail(sentence) {
  console.error(`release: ${sentence}`)
  process.exit(1)
}

function options() {
  const text = { type: 'string' }
  const flag = { type: 'boolean' }
  try {
    const known = { 'dry-run': flag, complete: flag, binaries: text, tag: text, help: flag }
    return parseArgs({ options: known }).values
  } catch (error) {
    console.error(`release: ${error.message}\n${HELP}`)
    process.exit(2)
  }
}

/** What keeps this version from being released, of the things that do not depend on the packages. */
function notReady(version) {
  const problems = []
  const { GITHUB_REF_TYPE, GITHUB_REF_NAME } = process.env
  const tags = GITHUB_REF_TYPE === 'tag' ? [GITHUB_REF_NAME] : gitTags()
  if (!tags.includes(`v${version}`)) problems.push(`the commit has no tag v${version}`)
  const heading = readFileSync(join(root, 'CHANGELOG.md'), 'utf8')
    .split('\n')
    .find((line) => line.startsWith(`## [${version}]`))
  if (!heading) problems.push(`CHANGELOG.md has no section ${version}`)
  else if (!/\d{4}-\d{2}-\d{2}/.test(heading)) problems.push(`CHANGELOG.md gives no date for ${version}`)
  return problems
}

function gitTags() {
  const run = spawnSync('git', ['tag', '--points-at', 'HEAD'], { cwd: root, encoding: 'utf8' })
  return run.status === 0 ? run.stdout.trim().split('\n') : []
}

/** What is wrong with the packages themselves. */
function wrong(staged, archives) {
  const problems = [...wrongVersions(root, staged), ...wrongManifest.main(staged.main.manifest)]
  for (const { manifest } of staged.platforms)
    problems.push(...wrongManifest.binary(manifest, staged.main.manifest))
  for (const { name, files, archive } of archives) {
    const platform = staged.platforms.find((each) => each.name === name)
    const contents = platform ? wrongContents.binary(files, platform.manifest) : wrongContents.main(files)
    problems.push(...contents.map((problem) => `${name}: ${problem}`))
    if (platform) continue
    for (const [checker, said] of lintPackage(root, archive))
      problems.push(...said.map((text) => `${checker}: ${text}`))
  }
  return problems
}

function npm(args, stdio = 'inherit') {
  return spawnSync('npm', args, { cwd: root, encoding: 'utf8', shell: WINDOWS, stdio })
}

function publish({ name, version, archive }, tag) {
  if (npm(['view', `${name}@${version}`, 'version'], 'pipe').stdout?.trim() === version) {
    console.log(`${name}@${version} is on the registry already`)
    return
  }
  const { status } = npm(['publish', archive, '--provenance', '--access', 'public', '--tag', tag])
  if (status !== 0)
    fail(`${name}@${version} was not published; npm says why above. Run again when that is mended.`)
}

/** npm's own checks of an archive, without sending it. */
function rehearse({ name, archive }, tag) {
  const { status, stderr } = npm(
    ['publish', archive, '--dry-run', '--access', 'public', '--tag', tag],
    'pipe',
  )
  if (status !== 0) fail(`npm would not publish ${name}: ${stderr}`)
}

function main() {
  const given = options()
  if (given.help) return console.log(HELP)
  if (!existsSync(join(root, 'dist', 'index.mjs'))) fail('there is no dist/; run npm run build:ts')
  const dry = given['dry-run'] === true
  const out = join(root, '.cache', 'release')
  const binaries = [given.binaries ? resolve(given.binaries) : root]
  const staged = stage({ root, out: join(out, 'stage'), binaries })
  const { version } = staged.main.manifest
  const tag = given.tag ?? (version.includes('-') ? 'next' : 'latest')

  const missing = staged.platforms.filter(({ hasBinary }) => !hasBinary).map(({ manifest }) => manifest.main)
  const reservations = [...notReady(version), ...missing.map((name) => `${name} is missing`)]
  const archivesFolder = join(out, 'archives')
  rmSync(archivesFolder, { recursive: true, force: true })
  mkdirSync(archivesFolder, { recursive: true })
  const packed = [...staged.platforms.filter(({ hasBinary }) => hasBinary), staged.main]
  const archives = packed.map(({ folder }) => pack(folder, archivesFolder))
  const problems = wrong(staged, archives)
  if (!dry) problems.push(...reservations)
  else if (given.complete) problems.push(...missing.map((name) => `${name} is missing`))
  if (problems.length > 0) fail(`nothing is published:\n  ${problems.join('\n  ')}`)
  for (const archive of archives) dry ? rehearse(archive, tag) : publish(archive, tag)
  for (const { name, size, unpackedSize } of archives)
    console.log(
      `${dry ? 'would publish' : 'published'} ${name}@${version} as ${tag}: ${size} bytes, ${unpackedSize} unpacked`,
    )
  if (dry) for (const sentence of reservations) console.log(`a real release would fail: ${sentence}`)
}

main()
