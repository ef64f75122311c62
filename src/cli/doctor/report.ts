/** What `spikenorm doctor` finds, as `--json` prints it. */

/** Something that is not as it could be. */
export interface Finding {
  about: 'node' | 'addon' | 'cpu' | 'kernels' | 'driver' | 'cublas' | 'cuda' | `cuda:${number}`
  /** `error`: it should work and does not, and the exit status is 1. `note`: it cannot work here, or need not. */
  level: 'error' | 'note'
  reason: string
  remedy: string
}

/** A forward and a backward, compared. */
export interface SelfTest {
  passed: boolean
  /** Largest error of a result, relative to its largest value; null where the test ended in an error. */
  error: number | null
  milliseconds: number
}

export interface Platform {
  os: string
  arch: string
  /** `glibc 2.36` or `musl` on Linux, else null. */
  libc: string | null
}

export interface AddonReport {
  path: string | null
  bytes: number | null
  version: string
}

export interface CpuReport {
  simd: string
  threads: number
  selfTest: SelfTest
}

export interface DeviceReport {
  index: number
  name: string
  computeCapability: [number, number]
  /** Bytes. */
  memory: number
  /** What of {@link CudaReport.kernels} runs on it: machine code, or PTX that the driver compiles; null: nothing. */
  kernels: string | null
  selfTest: SelfTest | null
}

export interface CudaReport {
  /** Whether a device passed its self-test. */
  usable: boolean
  /** What the kernels were compiled to, `sm_90` or `compute_75` (PTX). */
  kernels: string[]
  driver: {
    state: 'absent' | 'noDevice' | 'broken' | 'ready'
    /** NVIDIA's own number, such as `580.82.07`, where the system tells. */
    version: string | null
    /** Newest CUDA that it serves, such as `13.0`. */
    cuda: string | null
    path: string | null
  }
  cublas: { found: boolean; version: string | null; path: string | null }
  devices: DeviceReport[]
}

export interface Report {
  /** Whether nothing that should work fails: the exit status is 0. */
  ok: boolean
  version: string
  folder: string
  node: string
  platform: Platform
  /** null: none could be loaded. */
  addon: AddonReport | null
  cpu: CpuReport | null
  cuda: CudaReport | null
  findings: Finding[]
}
