// The package's promises that need no installation; `npm run test:package` checks the rest on what is packed.

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import {
  type AddonFailure,
  addonError,
  isAddonError,
  PREBUILT,
  platformName,
  reasonAndRemedy,
} from '../src/missing-addon.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  version: string
  napi: { targets: string[] }
}

interface Staged {
  main: { manifest: { optionalDependencies: Record<string, string> } }
  platforms: { name: string; manifest: { version: string }; hasBinary: boolean }[]
}
// Plain JavaScript, because it runs before anything is built; with a URL, because its folder has no declarations.
const script = async (name: string) => import(pathToFileURL(join(root, 'scripts', 'package', name)).href)
const { stage } = (await script('stage.mjs')) as {
  stage(options: { root: string; out: string; binaries: string[] }): Staged
}
const { wrongVersions } = (await script('versions.mjs')) as {
  wrongVersions(root: string, staged: Staged): string[]
}

const work = mkdtempSync(join(tmpdir(), 'spikenorm-package-test-'))
afterAll(() => rmSync(work, { recursive: true, force: true }))

describe('what is published', () => {
  const staged = stage({ root, out: join(work, 'stage'), binaries: [work] })

  it('has one version in package.json, the lockfiles, Cargo.toml and the packages of binaries', () => {
    expect(wrongVersions(root, staged)).toEqual([])
    const [first] = staged.platforms
    first!.manifest.version = '9.9.9'
    expect(wrongVersions(root, staged)).toEqual([
      `${first!.name}/package.json has version 9.9.9, package.json has ${manifest.version}`,
    ])
  })

  it('names a package of binaries for each target, and no other', () => {
    expect(Object.keys(staged.main.manifest.optionalDependencies).sort()).toEqual(
      PREBUILT.map((platform) => `spikenorm-${platform}`).sort(),
    )
    expect(staged.platforms).toHaveLength(manifest.napi.targets.length)
  })

  it('finds a binary in a folder of its own, as a workflow leaves it', () => {
    expect(staged.platforms.filter(({ hasBinary }) => hasBinary)).toEqual([])
    const binaries = mkdtempSync(join(work, 'binaries-'))
    const folder = mkdtempSync(join(binaries, 'binary-'))
    writeFileSync(join(folder, 'spikenorm.darwin-arm64.node'), 'binary')
    const again = stage({ root, out: join(work, 'again'), binaries: [binaries] })
    const found = again.platforms.filter(({ hasBinary }) => hasBinary).map(({ name }) => name)
    expect(found).toEqual(['spikenorm-darwin-arm64'])
  })
})

describe('the workflows', () => {
  const folder = join(root, '.github', 'workflows')
  const workflows = readdirSync(folder).map(
    (name) => [name, readFileSync(join(folder, name), 'utf8')] as const,
  )

  it.each(workflows)('%s pins actions by commit, with the version beside it', (_, text) => {
    const used = [...text.matchAll(/uses: (.+)/g)].map(([, action]) => action)
    expect(used.length).toBeGreaterThan(0)
    for (const action of used) expect(action).toMatch(/^[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/)
  })

  it.each(workflows)('%s installs what is locked', (_, text) => {
    expect(text).not.toMatch(/npm (install|i) /)
    for (const [command] of text.matchAll(/npm ci.*/g)) expect(command).toContain('--ignore-scripts')
    for (const [command] of text.matchAll(/cargo install.*/g))
      expect(command).toMatch(/--locked .*--version /)
    for (const [command] of text.matchAll(/pip" install.*/g)) expect(command).toContain('--require-hashes')
  })
})

describe('the error where no binary loads', () => {
  const coded = (code: string, message: string, more = {}) =>
    Object.assign(new Error(message), { code, ...more })
  const notFound = coded('MODULE_NOT_FOUND', "Cannot find module 'spikenorm-linux-x64-gnu'\nRequire stack:")
  const disabled = coded(
    'ERR_DLOPEN_DISABLED',
    'Cannot load native addon because loading addons is disabled.',
  )
  const messageOf = (failure: Partial<AddonFailure>) =>
    addonError({
      platform: 'linux-x64-gnu',
      failures: [notFound],
      hasPermissions: false,
      isBundled: false,
      ...failure,
    }).message

  it('names the package to install, and how to build', () => {
    const error = addonError({
      platform: 'linux-x64-gnu',
      failures: [notFound],
      hasPermissions: false,
      isBundled: false,
    })
    expect(error.code).toBe('ERR_FILE')
    expect(error.cause).toBe(notFound)
    expect(error.message).toContain('binary for linux-x64-gnu is not installed')
    expect(error.message).toContain('npm install spikenorm-linux-x64-gnu')
    expect(error.message).toContain('node scripts/prepare.mjs')
  })

  it('says what the loader said of a binary that is there and does not load', () => {
    const broken = coded('ERR_DLOPEN_FAILED', '/lib/libc.so.6: version `GLIBC_2.17` not found')
    expect(messageOf({ failures: [notFound, broken] })).toContain(
      'does not load on linux-x64-gnu: /lib/libc.so.6',
    )
  })

  it('lists the platforms that have a binary, on one that has none', () => {
    const message = messageOf({ platform: platformName('freebsd', 'x64', false) })
    expect(message).toContain('no prebuilt binary for freebsd-x64')
    expect(message).toContain('win32-x64-msvc')
    expect(message).not.toContain('npm install spikenorm-freebsd')
  })

  it('tells what forbids addons from a package that is not installed', () => {
    const withoutAddons = messageOf({ failures: [notFound, disabled] })
    expect(withoutAddons).toMatch(/by --no-addons; start node without that option/)
    const withPermissions = messageOf({ failures: [notFound, disabled], hasPermissions: true })
    expect(withPermissions).toMatch(/permission model .* native addons; start node with --allow-addons/)
    const denied = coded('ERR_ACCESS_DENIED', 'Access to this API has been restricted', {
      resource: '/a.node',
    })
    expect(messageOf({ failures: [denied], hasPermissions: true })).toMatch(
      /not let this process read \/a\.node; start node with --allow-addons and --allow-fs-read/,
    )
    for (const message of [withoutAddons, withPermissions]) expect(message).not.toContain('not installed')
  })

  it('tells a bundle what to do: external, or the binary beside it', () => {
    const message = messageOf({ isBundled: true })
    expect(message).toContain('mark spikenorm as external')
    expect(message).toContain('copy spikenorm.linux-x64-gnu.node from node_modules/spikenorm-linux-x64-gnu')
    expect(message).not.toContain('not installed')
  })

  it('names the variable that names a wrong binary', () => {
    expect(messageOf({ given: '/no.node' })).toBe(
      'spikenorm: SPIKENORM_NATIVE_LIBRARY_PATH names /no.node, which does not exist; correct SPIKENORM_NATIVE_LIBRARY_PATH or unset it',
    )
    const broken = coded('ERR_DLOPEN_FAILED', '/no.node: file too short')
    expect(messageOf({ given: '/no.node', failures: [broken] })).toContain('does not load: /no.node: file')
  })

  it('is one paragraph, and the doctor can take it apart', () => {
    const failures: Partial<AddonFailure>[] = [
      {},
      { platform: 'freebsd-x64' },
      { failures: [disabled] },
      { failures: [disabled], hasPermissions: true },
      { failures: [coded('ERR_ACCESS_DENIED', 'no')] },
      { failures: [coded('ERR_DLOPEN_FAILED', 'first; second\nthird')] },
      { given: '/a;/b' },
      { isBundled: true },
    ]
    for (const failure of failures) {
      const error = addonError({
        platform: 'linux-x64-gnu',
        failures: [notFound],
        hasPermissions: false,
        isBundled: false,
        ...failure,
      })
      expect(error.message).not.toContain('\n')
      expect(isAddonError(error)).toBe(true)
      const { reason, remedy } = reasonAndRemedy(error)
      expect(error.message).toBe(`spikenorm: ${reason}; ${remedy}`)
      expect(remedy).toMatch(/^(install|build|start|mark|correct) /)
    }
  })

  it.each([
    ['linux', 'arm64', true, 'linux-arm64-musl'],
    ['linux', 'x64', false, 'linux-x64-gnu'],
    ['darwin', 'arm64', false, 'darwin-arm64'],
    ['win32', 'x64', false, 'win32-x64-msvc'],
  ])('knows %s on %s, musl %s, as %s', (platform, arch, isMusl, name) => {
    expect(platformName(platform, arch, isMusl)).toBe(name)
    expect(PREBUILT).toContain(name)
  })
})
