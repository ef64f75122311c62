// What the doctor says, of this machine, of one without a driver, of a broken package and of devices that are not here.

import { cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { isAbsolute, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { kernelsFor } from '../../src/cli/doctor/examine.js'
import type { Finding, Report } from '../../src/cli/doctor/report.js'
import { kernelModuleVersion } from '../../src/cli/doctor/system.js'
import { cuda } from '../../src/index.js'
import { native } from '../../src/native.js'
import { ROOT, type Surroundings, spikenorm, temporaryFolder } from './support.js'

const unavailable = cuda.unavailableReason()
const devices = unavailable === null ? cuda.devices() : []
/** What is there whether or not this build has kernels for it. */
const found = native.cudaReport()
const isEmulated = found.devices[0]?.name === 'spikenorm emulated device'
/** Where the emulated driver is on LD_LIBRARY_PATH and nothing else is, a process without it has none. */
const withoutDriver = { LD_LIBRARY_PATH: undefined }
const version = (JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }).version

function examined(surroundings: Surroundings = {}, ...args: string[]) {
  const { status, stdout, stderr } = spikenorm(['doctor', '--json', ...args], surroundings)
  expect(stdout, stderr).toMatch(/^\{/)
  return { status, report: JSON.parse(stdout) as Report }
}

const about = ({ findings }: Report, what: Finding['about']) => findings.filter((each) => each.about === what)

/** The environment of a process whose addon answers otherwise. */
function altered(answers: object): Record<string, string> {
  const file = readdirSync(ROOT).find((name) => name.endsWith('.node'))
  return {
    SPIKENORM_NATIVE_LIBRARY_PATH: join(ROOT, 'test', 'cli', 'altered-addon.cjs'),
    SPIKENORM_TEST_ADDON: join(ROOT, file as string),
    SPIKENORM_TEST_ALTERED: JSON.stringify(answers),
  }
}

describe('the doctor, on this machine', () => {
  it('finds Node, platform, addon and a CPU backend that works', () => {
    const { status, report } = examined()
    expect(status).toBe(0)
    expect(report.ok).toBe(true)
    expect(report.version).toBe(version)
    expect(report.node).toBe(process.version)
    expect(report.platform).toMatchObject({ os: process.platform, arch: process.arch })
    if (process.platform === 'linux') expect(report.platform.libc).toMatch(/^(glibc \d+\.\d+|musl)$/)
    const { path, bytes } = report.addon as NonNullable<Report['addon']>
    expect(path && isAbsolute(path) && existsSync(path)).toBe(true)
    expect(bytes).toBeGreaterThan(100_000)
    expect(report.cpu?.selfTest.passed).toBe(true)
    // float32 against float64: small, and not nothing.
    expect(report.cpu?.selfTest.error).toBeGreaterThan(1e-9)
    expect(report.cpu?.selfTest.error).toBeLessThan(4e-6)
    expect(report.cpu?.threads).toBeGreaterThanOrEqual(1)
  })

  it("finds an addon of the package's version", () => {
    expect(examined().report.addon?.version).toBe(version)
  })

  it('says the same to people, a line for each thing', () => {
    const { status, stdout } = spikenorm(['doctor'])
    expect(status).toBe(0)
    for (const label of ['spikenorm', 'Node', 'platform', 'addon', 'CPU', 'kernels', 'driver', 'cuBLAS'])
      expect(stdout).toMatch(new RegExp(`^${label} +\\S`, 'm'))
    expect(stdout).toContain('works: forward and backward agree with the formula')
    expect(stdout).toMatch(/can be used/)
  })
})

describe.skipIf(found.driver !== 'absent' && !isEmulated)('without a driver', () => {
  it('all is well, and what is missing is said with what to do', () => {
    const { status, report } = examined({ env: withoutDriver })
    expect(status).toBe(0)
    expect(report.cuda).toMatchObject({ usable: false, devices: [] })
    expect(report.cuda?.driver).toEqual({ state: 'absent', version: null, cuda: null, path: null })
    const [finding] = about(report, 'driver')
    expect(finding?.level).toBe('note')
    expect(finding?.reason).toContain('no NVIDIA driver')
    expect(finding?.remedy).toMatch(/install its driver|macOS/)
    // cuBLAS is only of use to a device.
    expect(about(report, 'cublas')).toEqual([])
  })

  it('--require-cuda fails', () => {
    const { status, report } = examined({ env: withoutDriver }, '--require-cuda')
    expect(status).toBe(1)
    expect(report.ok).toBe(false)
    expect(about(report, 'cuda')[0]?.reason).toContain('no CUDA device can be used')
    const text = spikenorm(['doctor', '--require-cuda'], { env: withoutDriver })
    expect(text.status).toBe(1)
    expect(text.stdout).toContain('no CUDA device can be used')
  })
})

describe.skipIf(unavailable !== null)(
  `with a driver${unavailable === null ? '' : ` (not run here: ${unavailable})`}`,
  () => {
    it('finds every device, and a forward and backward that agree with the CPU', () => {
      const { status, report } = examined({}, '--require-cuda')
      expect(about(report, 'driver')).toEqual([])
      expect(status).toBe(0)
      expect(report.cuda?.usable).toBe(true)
      expect(report.cuda?.driver).toMatchObject({ state: 'ready', cuda: expect.stringMatching(/^\d+\.\d+$/) })
      expect(report.cuda?.kernels.length).toBeGreaterThan(0)
      expect(report.cuda?.devices.map(({ name }) => name)).toEqual(devices.map(({ name }) => name))
      for (const device of report.cuda?.devices ?? []) {
        expect(device.memory).toBe(devices[device.index]?.memory)
        expect(device.computeCapability).toEqual(devices[device.index]?.computeCapability)
        expect(device.selfTest?.passed).toBe(true)
        expect(device.selfTest?.error).toBeLessThan(4e-6)
        expect(report.cuda?.kernels).toContain(device.kernels)
      }
    })
  },
)

describe.skipIf(!isEmulated || unavailable !== null)('with an emulated driver', () => {
  it('finds cuBLAS, its version and where it is', () => {
    const { cublas, driver } = examined().report.cuda as NonNullable<Report['cuda']>
    expect(cublas).toMatchObject({ found: true, version: '13.0.2' })
    expect(cublas.path).toMatch(/libcublas\.so\.13$/)
    expect(driver).toMatchObject({ cuda: '13.0', path: expect.stringMatching(/libcuda\.so(\.1)?$/) })
  })

  it('without cuBLAS the device is usable, and it is said what needs it', () => {
    const { status, report } = examined({ env: { SPIKENORM_CUBLAS: '/nowhere/libcublas.so' } })
    expect(status).toBe(0)
    expect(report.cuda?.usable).toBe(true)
    expect(report.cuda?.cublas.found).toBe(false)
    const [finding] = about(report, 'cublas')
    expect(finding).toMatchObject({ level: 'note' })
    expect(finding?.reason).toContain('/nowhere/libcublas.so')
    expect(finding?.remedy).toContain('nvidia-cublas')
  })

  it('a driver without a device is no failure', () => {
    const { status, report } = examined({
      env: { SPIKENORM_EMULATED_DEVICES: '0', CUDA_VISIBLE_DEVICES: '7' },
    })
    expect(status).toBe(0)
    expect(report.cuda?.driver).toMatchObject({ state: 'noDevice', cuda: '13.0' })
    const [finding] = about(report, 'driver')
    expect(finding?.reason).toContain('CUDA_ERROR_NO_DEVICE')
    expect(finding?.remedy).toContain("CUDA_VISIBLE_DEVICES is '7'")
  })

  it('a driver that does not start is one', () => {
    const { status, report } = examined({ env: { SPIKENORM_EMULATED_INIT_ERROR: '999' } })
    expect(status).toBe(1)
    expect(report.cuda?.driver.state).toBe('broken')
    expect(about(report, 'driver')[0]).toMatchObject({
      level: 'error',
      reason: expect.stringContaining('CUDA_ERROR_UNKNOWN'),
      remedy: expect.stringContaining('nvidia-smi'),
    })
    // The CPU is as good as ever.
    expect(report.cpu?.selfTest.passed).toBe(true)
  })

  it('a driver too old for the kernels is one, with the driver that is needed', () => {
    const { status, report } = examined({ env: { SPIKENORM_EMULATED_DRIVER: '12040' } })
    expect(status).toBe(1)
    expect(report.cuda).toMatchObject({ usable: false, driver: { state: 'ready', cuda: '12.4' } })
    expect(about(report, 'cuda:0')[0]?.remedy).toBe("Update NVIDIA's driver to r580 or later.")
  })

  it('a device whose launches fail is one, and the other device is still tested', () => {
    const { status, report } = examined({ env: { SPIKENORM_EMULATED_FAULT: 'cuLaunchKernelEx=700@1' } })
    expect(status).toBe(1)
    expect(report.cuda?.devices.map(({ selfTest }) => selfTest?.passed)).toEqual([false, true])
    expect(about(report, 'cuda:0')[0]?.reason).toContain('fails its self-test')
    expect(report.cuda?.usable).toBe(true)
  })
})

describe('a package that is broken', () => {
  function copyWithoutAddon(): string {
    const folder = temporaryFolder()
    for (const name of ['src', 'package.json'])
      cpSync(join(ROOT, name), join(folder, name), { recursive: true })
    return folder
  }

  it('without the addon the doctor says which package is missing', () => {
    const folder = copyWithoutAddon()
    const main = join(folder, 'src', 'cli', 'main.ts')
    const { status, report } = examined({ main })
    expect(status).toBe(1)
    expect(report).toMatchObject({ ok: false, addon: null, cpu: null, cuda: null, folder })
    const [finding] = about(report, 'addon')
    expect(finding?.level).toBe('error')
    expect(finding?.reason).toMatch(new RegExp(`${process.platform}-${process.arch}.* is not installed`))
    expect(finding?.remedy).toContain(`npm install spikenorm-${process.platform}-${process.arch}`)
    const text = spikenorm(['doctor'], { main })
    expect(text.status).toBe(1)
    expect(text.stdout).toMatch(/^addon +none/m)
    expect(text.stdout).toContain('1 thing that should work does not')
  })

  it('an addon that does not load is told from one that is not there', () => {
    const folder = copyWithoutAddon()
    const name = readdirSync(ROOT).find((each) => each.endsWith('.node')) as string
    writeFileSync(join(folder, name), 'no library')
    const { status, report } = examined({ main: join(folder, 'src', 'cli', 'main.ts') })
    expect(status).toBe(1)
    expect(about(report, 'addon')[0]?.reason).toContain('does not load')
    expect(about(report, 'addon')[0]?.reason).toContain(name)
  })

  it('every other command says in a sentence that the addon is missing', () => {
    const main = join(copyWithoutAddon(), 'src', 'cli', 'main.ts')
    const { status, stderr } = spikenorm(['convert', 'x.safetensors'], { main })
    expect(status).toBe(1)
    expect(stderr).toMatch(/^spikenorm convert: its native binary for .* is not installed; .*\n$/)
  })

  it('an addon of another version is a failure', () => {
    const { status, report } = examined({ env: altered({ version: '9.9.9' }) })
    expect(status).toBe(1)
    expect(about(report, 'addon')[0]?.reason).toBe(`the addon is of version 9.9.9, the package of ${version}`)
  })

  it('a wrong result is a failure', () => {
    const { status, report } = examined({ env: altered({ wrong: true }) })
    expect(status).toBe(1)
    expect(report.cpu?.selfTest.passed).toBe(false)
    expect(about(report, 'cpu')[0]?.reason).toContain('wrong results')
  })
})

describe('machines that are not here', () => {
  const gpu = { index: 0, name: 'Some GPU', memory: 8 * 2 ** 30, computeCapability: [8, 6] }
  const ready = { driver: 'ready', driverProblem: null, driverCuda: [13, 0] }
  const built = { kernels: ['sm_90', 'compute_75'], kernelsProblem: null }

  it('a build without kernels says how to get them, and is no failure', () => {
    const kernelsProblem =
      'this build has no CUDA kernels, since nvcc was not found; install a prebuilt package of spikenorm, or build again where the CUDA toolkit is installed'
    const report = { ...ready, kernels: [], kernelsProblem, devices: [gpu] }
    const got = examined({ env: altered({ report }) })
    expect(got.status).toBe(0)
    expect(got.report.cuda).toMatchObject({ usable: false, kernels: [] })
    expect(about(got.report, 'kernels')).toEqual([
      {
        about: 'kernels',
        level: 'note',
        reason: 'this build has no CUDA kernels, since nvcc was not found',
        remedy:
          'Install a prebuilt package of spikenorm, or build again where the CUDA toolkit is installed.',
      },
    ])
    expect(got.report.cuda?.devices[0]).toMatchObject({ name: 'Some GPU', kernels: null, selfTest: null })
    const { stdout } = spikenorm(['doctor'], { env: altered({ report }) })
    expect(stdout).toMatch(/^cuda:0 .*Some GPU.*\n +cannot be used: this build has no kernels for it$/m)
  })

  it('a build that was to have no kernels says which variable asked for it', () => {
    const kernelsProblem = 'this build has no CUDA kernels, since SPIKENORM_NO_CUDA was set'
    const got = examined({ env: altered({ report: { kernels: [], kernelsProblem } }) })
    expect(got.status).toBe(0)
    const [finding] = about(got.report, 'kernels')
    expect(finding).toMatchObject({ level: 'note', reason: kernelsProblem })
    expect(finding?.remedy).toMatch(
      /^Install a prebuilt package of spikenorm, or build again without that variable/,
    )
  })

  it('a device older than the kernels is said to be, and is no failure', () => {
    const old = { ...gpu, computeCapability: [6, 1] }
    const report = { ...ready, ...built, devices: [old] }
    const got = examined({ env: altered({ report }) })
    expect(got.status).toBe(0)
    expect(about(got.report, 'cuda:0')[0]).toMatchObject({
      level: 'note',
      reason: expect.stringContaining('6.1'),
      remedy: expect.stringContaining('7.5'),
    })
  })

  it.skipIf(unavailable === null)('a device that is listed and cannot be opened is a failure', () => {
    const report = { ...ready, ...built, devices: [gpu] }
    const got = examined({ env: altered({ report }) })
    expect(got.status).toBe(1)
    expect(about(got.report, 'cuda:0')[0]).toMatchObject({ level: 'error' })
    expect(got.report.cuda?.devices[0]?.selfTest).toMatchObject({ passed: false, error: null })
  })

  it("the driver's number is read off either kernel module", () => {
    const own =
      'NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version: 12.2.0'
    const open =
      'NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.82.07  Release Build  (dvs-builder)'
    expect([own, open, 'nothing'].map(kernelModuleVersion)).toEqual(['535.104.05', '580.82.07', null])
  })

  it('machine code runs on its own major compute capability, PTX on every later one', () => {
    const targets = ['sm_90', 'compute_75']
    const of = (major: number, minor: number, built = targets) => kernelsFor([major, minor], built)
    expect(of(9, 0)).toBe('sm_90')
    expect(of(9, 5)).toBe('sm_90')
    expect([of(8, 6), of(7, 5), of(12, 0)]).toEqual(['compute_75', 'compute_75', 'compute_75'])
    expect([of(7, 0), of(6, 1), of(9, 0, [])]).toEqual([null, null, null])
    expect(of(8, 9, ['sm_80', 'sm_86', 'sm_90', 'compute_90'])).toBe('sm_86')
    expect(of(10, 0, ['sm_80', 'compute_80', 'compute_90'])).toBe('compute_90')
  })
})
