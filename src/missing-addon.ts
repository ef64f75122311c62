/** Why the package's native binary cannot be loaded, and what to do. Used by the loader. */
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

/** The environment variable that names a binary to load instead. */
export const LIBRARY_PATH = 'SPIKENORM_NATIVE_LIBRARY_PATH'

const BUILD =
  'build it from source: in a clone of the project, with Rust 1.89 or later, run node scripts/prepare.mjs, then npm install <path of the clone>'

/** Name of the platform as the packages of binaries have it. */
export function platformName(platform: string, arch: string, isMusl: boolean): string {
  if (platform === 'linux') return `linux-${arch}-${isMusl ? 'musl' : 'gnu'}`
  return platform === 'win32' ? `win32-${arch}-msvc` : `${platform}-${arch}`
}

/** An attempt to load the binary that failed. */
export interface AddonFailure {
  platform: string
  /** What {@link LIBRARY_PATH} names. */
  given?: string | undefined
  /** What was thrown for each place. */
  failures: readonly unknown[]
  /** Whether Node's permission model is on. */
  hasPermissions: boolean
  /** Whether this code runs outside its package. */
  isBundled: boolean
}

/** `remedy` has no semicolon: the doctor takes the message apart at the last one. */
interface Explanation {
  reason: string
  remedy: string
  cause?: unknown
}

const codeOf = (error: unknown) => (error as { code?: unknown } | null)?.code
const firstLine = (error: unknown) => String((error as Error)?.message ?? error).split('\n')[0] as string

/** Addons are forbidden in this process, or files that it needs. */
function forbidden({ failures, hasPermissions }: AddonFailure): Explanation | undefined {
  const disabled = failures.find((error) => codeOf(error) === 'ERR_DLOPEN_DISABLED')
  if (disabled && hasPermissions) {
    const reason = "Node's permission model does not let this process load native addons"
    return { reason, remedy: 'start node with --allow-addons (Node 20.12 or later)', cause: disabled }
  }
  if (disabled) {
    const reason = 'native addons are switched off in this process, by --no-addons'
    const remedy = 'start node without that option, which may also stand in NODE_OPTIONS or execArgv'
    return { reason, remedy, cause: disabled }
  }
  const denied = failures.find((error) => codeOf(error) === 'ERR_ACCESS_DENIED') as
    | { resource?: string }
    | undefined
  if (!denied) return undefined
  const reason = `Node's permission model does not let this process read ${denied.resource || 'the native binary'}`
  return {
    reason,
    remedy: "start node with --allow-addons and --allow-fs-read=<the program's folder>",
    cause: denied,
  }
}

function explain(failure: AddonFailure): Explanation {
  const { platform, given, failures, isBundled } = failure
  const notAllowed = forbidden(failure)
  if (notAllowed) return notAllowed
  const isMissing = (error: unknown) => codeOf(error) === 'MODULE_NOT_FOUND'
  // A file that is not there has no message worth repeating, one that does not load has.
  const broken = failures.find((error) => !isMissing(error))
  if (given) {
    const why = broken ? `does not load: ${firstLine(broken)}` : 'does not exist'
    const reason = `${LIBRARY_PATH} names ${given}, which ${why}`
    return { reason, remedy: `correct ${LIBRARY_PATH} or unset it`, cause: broken }
  }
  if (!(PREBUILT as readonly string[]).includes(platform)) {
    const reason = `there is no prebuilt binary for ${platform} (there is one for ${PREBUILT.join(', ')})`
    return { reason, remedy: BUILD, cause: broken }
  }
  const name = `spikenorm-${platform}`
  const install = `install it with npm install ${name}, the same version as spikenorm`
  if (broken) {
    const reason = `its native binary does not load on ${platform}: ${firstLine(broken)}`
    return { reason, remedy: `${install}, or ${BUILD}`, cause: broken }
  }
  if (isBundled) {
    const reason = `its native binary for ${platform} was not found from the bundle that spikenorm is part of`
    const copy = `copy spikenorm.${platform}.node from node_modules/${name} to the folder of the bundle`
    return { reason, remedy: `mark spikenorm as external in the bundler, or ${copy}`, cause: failures.at(-1) }
  }
  const why = ' (it is left out by --omit=optional, and by a node_modules made on another platform)'
  const reason = `its native binary for ${platform} is not installed`
  return { reason, remedy: `${install}${why}, or ${BUILD}`, cause: failures.at(-1) }
}

/** The error for users: one paragraph, with what is wrong and what to do. */
export function addonError(failure: AddonFailure): SpikenormError {
  const { reason, remedy, cause } = explain(failure)
  const options = cause === undefined ? undefined : { cause }
  return new SpikenormError('ERR_FILE', `spikenorm: ${reason}; ${remedy}`, options)
}

/** The two halves of such an error's message. */
export function reasonAndRemedy({ message }: SpikenormError): { reason: string; remedy: string } {
  const at = message.lastIndexOf('; ')
  return { reason: message.slice(0, at).replace('spikenorm: ', ''), remedy: message.slice(at + 2) }
}

/** Whether an error is of {@link addonError}. */
export function isAddonError(error: unknown): error is SpikenormError {
  return (
    error instanceof SpikenormError && error.code === 'ERR_FILE' && error.message.startsWith('spikenorm: ')
  )
}
