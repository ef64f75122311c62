/** Looks at everything there is, and says of what is missing or broken why and what to do. */
import { statSync } from 'node:fs'
import { isAddonError, reasonAndRemedy } from '../../missing-addon.js'
import { type PackageOfThis, packageOfThis } from '../package.js'
import type { CudaReport, DeviceReport, Finding, Report, SelfTest } from './report.js'
import { describePlatform, isInContainer, loadedLibrary, nvidiaDriverVersion } from './system.js'

type Native = typeof import('../../native.js')['native']
type Found = ReturnType<Native['cudaReport']>

const OLDEST_NODE = 20
/** What the kernels of a default build need; the launcher says the same of drivers that do not load them. */
const DRIVER_NEEDED = 'r580 or later'

export async function examine(): Promise<Report> {
  const own = packageOfThis()
  const findings: Finding[] = []
  const report: Report = {
    ok: false,
    version: own.version,
    folder: own.folder,
    node: process.version,
    platform: describePlatform(),
    addon: null,
    cpu: null,
    cuda: null,
    findings,
  }
  examineNode(findings)
  const native = await loadAddon(findings)
  if (native !== null) {
    report.addon = describeAddon(native, own, findings)
    const tests = await import('./self-test.js')
    const selfTest = attempt(tests.testCpu, 'cpu', 'the CPU backend', findings)
    report.cpu = { simd: native.simdLevel(), threads: native.numThreads(), selfTest }
    report.cuda = examineCuda(native, tests.testDevice, findings)
  }
  report.ok = !findings.some(({ level }) => level === 'error')
  return report
}

function examineNode(findings: Finding[]): void {
  if (Number.parseInt(process.versions.node, 10) >= OLDEST_NODE) return
  const reason = `Node ${process.version} is older than ${OLDEST_NODE}`
  findings.push({
    about: 'node',
    level: 'error',
    reason,
    remedy: 'Install a later one from https://nodejs.org.',
  })
}

/** The addon, or null with a finding: everything else in this program works without. */
async function loadAddon(findings: Finding[]): Promise<Native | null> {
  try {
    return (await import('../../native.js')).native
  } catch (thrown) {
    findings.push({ about: 'addon', level: 'error', ...whyNoAddon(thrown) })
    return null
  }
}

/** What the package says of a binary that is missing or does not load, in two. */
function whyNoAddon(thrown: unknown): Pick<Finding, 'reason' | 'remedy'> {
  if (!isAddonError(thrown)) throw thrown
  const { reason, remedy } = reasonAndRemedy(thrown)
  return { reason, remedy: sentence(remedy) }
}

function describeAddon(native: Native, own: PackageOfThis, findings: Finding[]) {
  const path = loadedLibrary(/spikenorm[^/\\]*\.node$/)
  const version = native.addonVersion()
  if (version !== own.version) {
    findings.push({
      about: 'addon',
      level: 'error',
      reason: `the addon is of version ${version}, the package of ${own.version}`,
      remedy: `Install ${own.name} again: npm install ${own.name}@${own.version}, or in a clone of the project npm run build.`,
    })
  }
  return { path, bytes: path === null ? null : statSync(path).size, version }
}

/** Runs a self-test; a wrong result and an error are findings alike. */
function attempt(test: () => SelfTest, about: Finding['about'], what: string, findings: Finding[]): SelfTest {
  const fail = (reason: string, remedy: string) => findings.push({ about, level: 'error', reason, remedy })
  const report = `Please report it with the output of npx spikenorm doctor --json.`
  try {
    const result = test()
    if (!result.passed) fail(`${what} computes wrong results (off by ${result.error})`, report)
    return result
  } catch (thrown) {
    const { code, message } = thrown as { code?: string; message: string }
    fail(`${what} fails its self-test: ${message}`, remedyOf(code, message, about, report))
    return { passed: false, error: null, milliseconds: 0 }
  }
}

function remedyOf(
  code: string | undefined,
  message: string,
  about: Finding['about'],
  otherwise: string,
): string {
  if (/do not load|too old/.test(message)) return `Update NVIDIA's driver to ${DRIVER_NEEDED}.`
  if (code === 'ERR_OUT_OF_MEMORY') return 'Free its memory: nvidia-smi lists the processes that use it.'
  if (about !== 'cpu')
    return 'Run nvidia-smi, which must list the device; after an update of the driver restart the machine.'
  return otherwise
}

function examineCuda(
  native: Native,
  testDevice: (device: `cuda:${number}`, hasBlas: boolean) => SelfTest,
  findings: Finding[],
): CudaReport {
  const found = native.cudaReport()
  const isReady = found.driver === 'ready'
  examineKernels(found, findings)
  examineDriver(found, findings)
  const devices = found.devices.map((device): DeviceReport => {
    const computeCapability = device.computeCapability as [number, number]
    const about = `cuda:${device.index}` as const
    const kernels = kernelsFor(computeCapability, found.kernels)
    let selfTest: SelfTest | null = null
    if (found.kernels.length > 0 && kernels === null) {
      findings.push({
        about,
        level: 'note',
        reason: `its compute capability ${computeCapability.join('.')} is older than what the kernels are built for (${found.kernels.join(', ')})`,
        remedy: 'Use a device of compute capability 7.5 (Turing, 2018) or later, or the CPU.',
      })
    } else if (found.kernels.length > 0) {
      const hasBlas = found.cublas !== undefined
      selfTest = attempt(() => testDevice(about, hasBlas), about, device.name, findings)
    }
    return {
      index: device.index,
      name: device.name,
      computeCapability,
      memory: device.memory,
      kernels,
      selfTest,
    }
  })
  if (isReady && found.cublas === undefined) {
    const [reason, remedy] = splitAdvice(
      found.cublasProblem ?? 'there is no cuBLAS',
      'Install the CUDA toolkit.',
    )
    findings.push({
      about: 'cublas',
      level: 'note',
      reason: `${reason}; convolution and linear layers need it on a device, normalisation does not`,
      remedy,
    })
  }
  return {
    usable: devices.some(({ selfTest }) => selfTest?.passed),
    kernels: found.kernels,
    driver: {
      state: found.driver as CudaReport['driver']['state'],
      version: found.driver === 'absent' ? null : nvidiaDriverVersion(),
      cuda: found.driverCuda?.join('.') ?? null,
      path: found.driver === 'absent' ? null : loadedLibrary(/(^|[/\\])(libcuda\.so[^/\\]*|nvcuda\.dll)$/),
    },
    cublas: {
      found: found.cublas !== undefined,
      version: found.cublasVersion?.join('.') ?? null,
      path: loadedLibrary(/(^|[/\\])(lib)?cublas(\.so|64_)[^/\\]*$/),
    },
    devices,
  }
}

function examineKernels(found: Found, findings: Finding[]): void {
  if (found.kernelsProblem === undefined) return
  const [reason, remedy] = splitAdvice(
    found.kernelsProblem,
    found.kernelsProblem.includes('SPIKENORM_NO_CUDA')
      ? 'Install a prebuilt package of spikenorm, or build again without that variable and with the CUDA toolkit.'
      : 'Use the CPU, or a machine of another kind for the GPU.',
  )
  findings.push({ about: 'kernels', level: 'note', reason, remedy })
}

function examineDriver(found: Found, findings: Finding[]): void {
  if (found.driver === 'ready') return
  const reason = found.driverProblem ?? 'the NVIDIA driver does not start'
  findings.push({
    about: 'driver',
    level: found.driver === 'broken' ? 'error' : 'note',
    reason,
    remedy: driverRemedy(found, reason),
  })
}

function driverRemedy({ driver }: Found, reason: string): string {
  if (process.platform === 'darwin') return 'NVIDIA makes none for macOS: use the CPU, which needs nothing.'
  const container = isInContainer()
    ? ' A container sees the GPU of its host if it is started with it (docker run --gpus all).'
    : ''
  if (driver === 'absent')
    return `To use an NVIDIA GPU, install its driver, ${DRIVER_NEEDED}; the CPU needs none.${container}`
  if (/too old/.test(reason)) return `Update it to ${DRIVER_NEEDED}.`
  const visible = process.env.CUDA_VISIBLE_DEVICES
  const hidden = visible === undefined ? '' : ` CUDA_VISIBLE_DEVICES is '${visible}' here.`
  if (driver === 'noDevice') return `nvidia-smi lists the devices, where there are any.${hidden}${container}`
  return `Run nvidia-smi, which says what is wrong; after an update of the driver restart the machine.${hidden}${container}`
}

/** `what is wrong (details); what to do` in two, where it has both. */
function splitAdvice(message: string, otherwise: string): [string, string] {
  const at = message.lastIndexOf('; ')
  return at < 0 ? [message, otherwise] : [message.slice(0, at), sentence(message.slice(at + 2))]
}

function sentence(text: string): string {
  return `${text[0]?.toUpperCase()}${text.slice(1)}.`
}

/**
 * What of the kernels a device runs: machine code of its own major compute capability and no newer minor one, else the
 * newest PTX that is not newer than the device.
 */
export function kernelsFor(
  [major, minor]: readonly [number, number],
  targets: readonly string[],
): string | null {
  const capability = major * 10 + minor
  const usable = targets
    .map((name) => ({ name, built: Number(name.replace(/\D/g, '')), isPtx: name.startsWith('compute_') }))
    .filter(({ built, isPtx }) => built <= capability && (isPtx || Math.floor(built / 10) === major))
    .sort((a, b) => Number(a.isPtx) - Number(b.isPtx) || b.built - a.built)
  return usable[0]?.name ?? null
}
