/** What to do where the package's native binary cannot be loaded. Used by the bundled addon loader. */
import { SpikenormError } from './errors.js'

/** Platforms with a prebuilt binary, as package.json's napi.targets names them; a test compares the two. */
export const PREBUILT = [
  'linux-x64-gnu',
  'linux-arm64-gnu',
  'linux-x64-musl',
  'linux-arm64-musl',
  'darwin-x64',
  'darwin-arm64',
  'win32-x64-msvc',
] as const

const BUILD =
  'build it from source: in a clone of the project, with Rust 1.89 or later, run node scripts/prepare.mjs, then npm install <path of the clone>'

/** Name of the platform as the packages of binaries have it. */
export function platformName(platform: string, arch: string, isMusl: boolean): string {
  if (platform === 'linux') return `linux-${arch}-${isMusl ? 'musl' : 'gnu'}`
  return platform === 'win32' ? `win32-${arch}-msvc` : `${platform}-${arch}`
}

/** Every message of a chain of causes. */
function messages(error: unknown): string[] {
  const found: string[] = []
  for (let at = error; at instanceof Error; at = at.cause) found.push(at.message.split('\n')[0] as string)
  return found
}

function runsOnMusl(): boolean {
  if (process.platform !== 'linux') return false
  const { header } = process.report.getReport() as { header?: { glibcVersionRuntime?: string } }
  return header?.glibcVersionRuntime === undefined
}

/** The loader's error, with the package that is missing and the way to get or to replace it. */
export function missingAddon(
  error: unknown,
  platform: string = platformName(process.platform, process.arch, runsOnMusl()),
): SpikenormError {
  const name = `spikenorm-${platform}`
  if (!(PREBUILT as readonly string[]).includes(platform)) {
    const message = `spikenorm: there is no prebuilt binary for ${platform} (there is one for ${PREBUILT.join(', ')}); ${BUILD}`
    return new SpikenormError('ERR_FILE', message, { cause: error })
  }
  // A file that is not there has no message worth repeating, one that does not load has.
  const broken = messages(error).find(
    (message) => message.includes('.node') && !message.startsWith('Cannot find'),
  )
  const what = broken
    ? `its native binary does not load on ${platform}: ${broken}`
    : `its native binary for ${platform} is not installed`
  const remedy = `install it with npm install ${name}, the same version as spikenorm`
  const why = broken
    ? ''
    : ' (it is left out by --omit=optional, and by a node_modules made on another platform)'
  return new SpikenormError('ERR_FILE', `spikenorm: ${what}; ${remedy}${why}, or ${BUILD}`, { cause: error })
}
