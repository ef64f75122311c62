/** The report for people: a line per thing, and below it what is wrong and what helps. */
import { bold, bytes, dim, green, red, short, yellow } from '../text.js'
import type { CudaReport, Finding, Report, SelfTest } from './report.js'

const LABEL = 10

export function render(report: Report): string {
  const { platform, addon, cpu, cuda } = report
  const lines: string[] = []
  const line = (label: string, text: string) => lines.push(`${bold(label.padEnd(LABEL))}${text}`)
  /** A thing and what was found about it. */
  const section = (label: string, about: Finding['about'], text: string) => {
    line(label, text)
    for (const finding of report.findings) if (finding.about === about) lines.push(...describe(finding))
  }

  line('spikenorm', `${report.version} ${dim(`in ${report.folder}`)}`)
  section('Node', 'node', report.node)
  line('platform', [platform.os, platform.arch, platform.libc].filter(Boolean).join(' '))
  section('addon', 'addon', addon ? addonText(addon) : red('none'))
  if (cpu) {
    section('CPU', 'cpu', outcome(cpu.selfTest, 'forward and backward agree with the formula'))
    line('', `SIMD ${cpu.simd}, ${cpu.threads} ${cpu.threads === 1 ? 'thread' : 'threads'}`)
  }
  if (cuda) {
    section(
      'kernels',
      'kernels',
      cuda.kernels.length > 0 ? cuda.kernels.map(target).join(', ') : yellow('none'),
    )
    section('driver', 'driver', driverText(cuda))
    section('cuBLAS', 'cublas', blasText(cuda))
    for (const device of cuda.devices) {
      const about = `cuda:${device.index}` as const
      const capability = `compute capability ${device.computeCapability.join('.')}`
      section(about, about, `${device.name}, ${capability}, ${bytes(device.memory)}`)
      if (device.selfTest)
        line(
          '',
          outcome(device.selfTest, 'forward and backward agree with the CPU') + kernelText(device.kernels),
        )
      else if (cuda.kernels.length === 0)
        line('', `${yellow('cannot be used')}: this build has no kernels for it`)
    }
  }
  if (report.findings.some(({ about }) => about === 'cuda')) section('CUDA', 'cuda', red('cannot be used'))
  lines.push('', verdict(report))
  return lines.join('\n')
}

function addonText({ path, bytes: size }: NonNullable<Report['addon']>): string {
  return `${path ?? 'loaded'}${size === null ? '' : ` ${dim(`(${bytes(size)})`)}`}`
}

function target(name: string): string {
  return name.startsWith('compute_') ? `PTX for ${name} and later` : `machine code for ${name}`
}

function kernelText(name: string | null): string {
  return name?.startsWith('compute_') ? ', from PTX that the driver compiled' : ''
}

function driverText({ driver }: CudaReport): string {
  const version = driver.version === null ? '' : `${driver.version} `
  const serves = driver.cuda === null ? '' : `serves CUDA ${driver.cuda}`
  const path = driver.path === null ? '' : ` ${dim(driver.path)}`
  if (driver.state === 'ready') return `${version}${serves}${path}`
  const state =
    driver.state === 'absent' ? 'none' : driver.state === 'noDevice' ? 'no device' : 'does not work'
  const known = `${version}${serves}`.trim()
  return `${(driver.state === 'broken' ? red : yellow)(state)}${known === '' ? '' : ` (${known})`}`
}

function blasText({ cublas, driver }: CudaReport): string {
  if (!cublas.found) return driver.state === 'ready' ? yellow('none') : dim('none, and no device to use it')
  return `${cublas.version ?? 'found'}${cublas.path === null ? '' : ` ${dim(cublas.path)}`}`
}

function outcome({ passed, error, milliseconds }: SelfTest, claim: string): string {
  if (!passed) return red('does not work')
  return `${green('works')}: ${claim} ${dim(`(largest error ${short(error ?? 0)}, ${Math.round(milliseconds)} ms)`)}`
}

function describe({ level, reason, remedy }: Finding): string[] {
  const indent = ' '.repeat(LABEL)
  return [`${indent}${level === 'error' ? red('error') : yellow('note')}: ${reason}`, `${indent}→ ${remedy}`]
}

function verdict({ ok, cpu, cuda, findings }: Report): string {
  const works = [cpu?.selfTest.passed && 'the CPU', cuda?.usable && 'CUDA'].filter(Boolean).join(' and ')
  const errors = findings.filter(({ level }) => level === 'error').length
  if (!ok)
    return red(
      `${errors} ${errors === 1 ? 'thing' : 'things'} that should work ${errors === 1 ? 'does' : 'do'} not${works ? `; ${works} can be used` : ''}.`,
    )
  return green(
    `${works[0]?.toUpperCase()}${works.slice(1)} can be used${cuda?.usable ? '' : '; CUDA cannot, for the reasons above'}.`,
  )
}
