// The digits: reading them, splitting them, and cutting them into batches.
//
// Direct encoding: the network sees the same image, pixel / 16, at each of its T time steps, as an input current.

import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { manualSeed, randperm } from 'spikenorm'

export const SIDE = 8
export const PIXELS = SIDE * SIDE
export const CLASSES = 10

export interface Images {
  count: number
  /** count × PIXELS, from 0 to 1 */
  pixels: Float32Array
  labels: Uint8Array
}

export interface Split {
  train: Images
  /** chooses the epoch whose weights are kept, so that the test images choose nothing */
  validation: Images
  test: Images
}

export interface Batch {
  /** [steps, size, 1, SIDE, SIDE] */
  pixels: Float32Array
  labels: number[]
  size: number
}

const FILE = new URL('./data/digits.csv.gz', import.meta.url)

// The split is the same in every run: only then do the accuracies of two runs with different seeds compare.
const SPLIT_SEED = 1797
const TEST_SHARE = 0.2
const VALIDATION_SHARE = 0.1

export function loadDigits(): Split {
  const all = parseDigits(gunzipSync(readFileSync(FILE)).toString('latin1'))
  manualSeed(SPLIT_SEED)
  const order = randperm(all.count)
  const testEnd = Math.round(all.count * TEST_SHARE)
  const validationEnd = testEnd + Math.round(all.count * VALIDATION_SHARE)
  return {
    test: select(all, order.slice(0, testEnd)),
    validation: select(all, order.slice(testEnd, validationEnd)),
    train: select(all, order.slice(validationEnd)),
  }
}

export function parseDigits(text: string): Images {
  const lines = text.trim().split('\n')
  const images = emptyImages(lines.length)
  for (const [row, line] of lines.entries()) {
    const values = line.split(',').map(Number)
    const label = values[PIXELS]
    if (
      values.length !== PIXELS + 1 ||
      label === undefined ||
      !values.every((value) => value >= 0 && value <= 16)
    ) {
      throw new Error(`digits.csv.gz, line ${row + 1}: expected ${PIXELS} pixels from 0 to 16 and a label`)
    }
    for (let pixel = 0; pixel < PIXELS; pixel++)
      images.pixels[row * PIXELS + pixel] = (values[pixel] as number) / 16
    images.labels[row] = label
  }
  return images
}

function emptyImages(count: number): Images {
  return { count, pixels: new Float32Array(count * PIXELS), labels: new Uint8Array(count) }
}

export function select(images: Images, indices: ArrayLike<number>): Images {
  const chosen = emptyImages(indices.length)
  for (let row = 0; row < indices.length; row++) {
    const from = indices[row] as number
    chosen.pixels.set(images.pixels.subarray(from * PIXELS, (from + 1) * PIXELS), row * PIXELS)
    chosen.labels[row] = images.labels[from] as number
  }
  return chosen
}

/** The first image of each digit, 0 to 9, for pictures. */
export function oneOfEach(images: Images): Images {
  const indices = Array.from({ length: CLASSES }, (_, digit) => images.labels.indexOf(digit))
  return select(
    images,
    indices.filter((index) => index >= 0),
  )
}

/** Batches of at most `size` images in the order given by `order`. */
export function* batches(images: Images, size: number, steps: number, order: number[]): Generator<Batch> {
  for (let start = 0; start < order.length; start += size) {
    yield toBatch(select(images, order.slice(start, start + size)), steps)
  }
}

/** The first `count` of `images`, or all where there are fewer. */
export function firstOf(images: Images, count: number): Images {
  return select(images, inOrder(Math.min(count, images.count)))
}

/** The numbers 0 … count − 1. */
export function inOrder(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i)
}

export function toBatch(images: Images, steps: number): Batch {
  const pixels = new Float32Array(steps * images.pixels.length)
  for (let step = 0; step < steps; step++) pixels.set(images.pixels, step * images.pixels.length)
  return { pixels, labels: [...images.labels], size: images.count }
}

export function batchCount(images: Images, size: number): number {
  return Math.ceil(images.count / size)
}
