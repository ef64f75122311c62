// What a run leaves behind: one JSON file. Rows are flat, so that they can be filtered and joined by anything.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import type { Device, DType } from 'spikenorm'
import type { Direction, LayerName } from '../cases/layers.js'
import type { Check } from '../measure/check.js'
import type { Launch } from '../measure/cuda.js'
import type { Cache } from '../measure/sets.js'
import type { Timing } from '../measure/statistics.js'
import type { Machine, Versions } from './machine.js'

/** Raised when a row changes its meaning. */
export const FORMAT = 1

/** A peer's time, or why it has none. */
export type PeerCell = { time: Timing; speedup: number; note?: string } | { absent: string }

export interface LayerRow {
  layer: LayerName
  direction: Direction
  shape: string
  dtype: DType
  device: Device
  cache: Cache
  /** `call`: one call at a time on the CPU */
  launch: Launch | 'call'
  threads: number
  check: Check
  time: Timing
  /** by formula: 2 U or 3 U */
  bytes: number
  gigabytesPerSecond: number
  /** of a copy of U bytes in the same rounds */
  copy: { time: Timing; gigabytesPerSecond: number }
  percentOfCopy: number
  peers: Record<string, PeerCell>
}

export interface NapiRow {
  /** a layer's call, or one of the probes that have no arithmetic */
  what: string
  direction: Direction | null
  /** µs per call */
  time: Timing
  /** µs per call of a layer with one channel: hardly any arithmetic, so the call itself */
  oneChannel: Timing | null
  peers: Record<string, PeerCell>
}

export interface ScalingRow {
  axis: 'threads' | 'T' | 'batch'
  value: number
  beyondCores: boolean
  layer: LayerName
  direction: Direction
  shape: string
  dtype: DType
  device: Device
  threads: number
  time: Timing
  bytes: number
  gigabytesPerSecond: number
  picosecondsPerByte: number
}

export interface MemoryRow {
  layer: LayerName
  shape: string
  dtype: DType
  /** U: one tensor of this shape */
  tensorBytes: number
  /** kept from forward for backward, input included, output not */
  saved: number
  /** most held during a step above what was held before it: input and dy were, y and dx were not */
  peak: number
  peers: Record<string, { saved: number; peak: number } | { absent: string }>
}

export interface TrainingRow {
  norm: string
  device: Device
  threads: number
  epochs: number
  /** seconds per epoch of training, and the loss of each epoch */
  seconds: number[]
  loss: number[]
  peers: Record<string, { seconds: number[]; loss: number[]; speedup: number } | { absent: string }>
}

export interface Suites {
  layers?: LayerRow[]
  napi?: NapiRow[]
  scaling?: ScalingRow[]
  memory?: MemoryRow[]
  training?: TrainingRow[]
}

export interface ResultFile {
  format: number
  date: string
  command: string
  commit: string
  machine: Machine
  versions: Versions
  threads: number
  /** cases that were not measured, and why */
  skipped: string[]
  suites: Suites
}

/** What makes two rows of two files the same measurement. */
export function keyOf(row: LayerRow): string {
  const { device, threads, layer, direction, shape, dtype, cache, launch } = row
  const where = device === 'cpu' ? `cpu ×${threads}` : device
  return [where, layer, direction, shape, dtype, cache, launch].join(' ')
}

export class ResultError extends Error {
  override readonly name = 'ResultError'
}

export function readResults(path: string): ResultFile {
  let file: ResultFile
  try {
    file = JSON.parse(readFileSync(path, 'utf8')) as ResultFile
  } catch (error) {
    throw new ResultError(`${path} cannot be read as a result file: ${(error as Error).message}`)
  }
  if (file?.format !== FORMAT) {
    throw new ResultError(`${path} is no result file of format ${FORMAT} (its format is ${file?.format})`)
  }
  return file
}

export function writeResults(path: string, results: ResultFile): void {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, `${JSON.stringify(results, null, 1)}\n`)
}
