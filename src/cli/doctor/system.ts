/** What the operating system knows: the C library, loaded libraries, NVIDIA's driver. */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import type { Platform } from './report.js'

interface ProcessReport {
  header: { glibcVersionRuntime?: string }
  sharedObjects: string[]
}

/** Node's own report of this process: what it runs on and what it has loaded. */
function processReport(): ProcessReport {
  // Looking up host names can take seconds, and is not needed. Younger than the oldest Node supported.
  Object.assign(process.report, { excludeNetwork: true })
  return process.report.getReport() as unknown as ProcessReport
}

export function describePlatform(): Platform {
  const { platform: os, arch } = process
  if (os !== 'linux') return { os, arch, libc: null }
  const glibc = processReport().header.glibcVersionRuntime
  return { os, arch, libc: glibc === undefined ? 'musl' : `glibc ${glibc}` }
}

/** The file of a library that this process has loaded. */
export function loadedLibrary(name: RegExp): string | null {
  return processReport().sharedObjects.find((path) => name.test(path)) ?? null
}

/** The number in /proc/driver/nvidia/version, of NVIDIA's own kernel module or of the open one. */
export function kernelModuleVersion(text: string): string | null {
  return /Kernel Module.*?\s(\d+\.\d[\d.]*)/.exec(text)?.[1] ?? null
}

/** NVIDIA's number of the driver, which CUDA itself does not tell. */
export function nvidiaDriverVersion(): string | null {
  const file = '/proc/driver/nvidia/version'
  if (existsSync(file)) {
    const version = kernelModuleVersion(readFileSync(file, 'utf8'))
    if (version !== null) return version
  }
  const args = ['--query-gpu=driver_version', '--format=csv,noheader']
  const smi = spawnSync('nvidia-smi', args, { encoding: 'utf8', timeout: 5000 })
  const line = smi.status === 0 ? smi.stdout.trim().split('\n')[0] : undefined
  return line !== undefined && /^[\d.]+$/.test(line) ? line : null
}

/** Whether this process runs in a container, which sees a GPU only if it was started with it. */
export function isInContainer(): boolean {
  return existsSync('/.dockerenv') || existsSync('/run/.containerenv')
}
