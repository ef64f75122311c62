import type { Device } from './device.js'
import type { DType } from './dtype.js'
import { SpikenormError } from './errors.js'
import type { Handle, Saved } from './handle.js'
import { changed, isAtomic, made } from './rollback.js'
import type { Tensor } from './tensor.js'

/** What a module keeps of one recorded forward. */
export interface TapeEntry {
  /** Freed when the entry has left the tape for good. */
  readonly saved?: Handle | Saved
  /** Whether its backward has been called or `reset()` has dropped it. */
  isGone: boolean
}

/** What became of the forward that a backward is called for when none is pending. */
type Latest = 'none' | 'unrecorded' | 'used' | 'dropped'

const WHY: Record<Latest, string> = {
  none: 'no forward has been recorded; forwards are recorded in training mode or within enableGrad()',
  unrecorded:
    'the latest forward was not recorded; forwards are recorded in training mode or within enableGrad(), and never within noGrad()',
  used: "this forward's backward has been called; call forward() again, each recorded forward has one backward",
  dropped: 'reset() has dropped the recorded forward; call backward() before reset()',
}

/** The recorded forwards of a module that have had no backward yet; backward takes the latest first. */
export class Tape<Entry extends TapeEntry> {
  #entries: Entry[] = []
  #latest: Latest = 'none'

  get length(): number {
    return this.#entries.length
  }

  push(entry: Entry): void {
    this.#entries.push(entry)
    if (!isAtomic()) return
    made(entry)
    changed({
      undo: () => {
        this.#entries.pop()
        entry.isGone = true
        entry.saved?.dispose()
      },
    })
  }

  /** Says that a forward has not been recorded. */
  skip(): void {
    this.#latest = 'unrecorded'
  }

  /** The latest entry, which stays until `pop`: a backward that throws has taken nothing. */
  latest(): Entry {
    const entry = this.#entries.at(-1)
    if (!entry) throw new SpikenormError('ERR_NO_FORWARD', `backward: ${WHY[this.#latest]}`)
    return entry
  }

  pop(): void {
    this.#remove('used')
  }

  clear(): void {
    while (this.#entries.length > 0) this.#remove('dropped')
  }

  #remove(why: 'used' | 'dropped'): void {
    const entry = this.#entries.pop()
    if (!entry) return
    const latest = this.#latest
    this.#latest = why
    entry.isGone = true
    if (!isAtomic()) {
      entry.saved?.dispose()
      return
    }
    changed({
      undo: () => {
        this.#entries.push(entry)
        entry.isGone = false
        this.#latest = latest
      },
      release: () => entry.saved?.dispose(),
      releases: entry,
    })
  }

  /** Puts other entries in the place of all there are, which are handed over; none is freed. */
  exchange(entries: readonly Entry[]): Entry[] {
    const before = this.#entries
    this.#entries = [...entries]
    changed({
      undo: () => {
        this.#entries = before
      },
    })
    return before
  }
}

/** What a gradient has to be like: the output it belongs to. */
export interface OutputLike {
  readonly shape: readonly number[]
  readonly dtype: DType
  readonly device: Device
}

/** What a forward has to remember of its output, which itself may be freed. */
export function likenessOf({ shape, dtype, device }: Tensor): OutputLike {
  return { shape, dtype, device }
}

/** Throws unless `dy` looks like the output it is the gradient of. */
export function expectGradient(dy: Tensor, { shape, dtype, device }: OutputLike): void {
  if (dy.shape.join() !== shape.join()) {
    const show = (extents: readonly number[]) => `[${extents.join(', ')}]`
    throw new SpikenormError('ERR_SHAPE', `dy: expected shape ${show(shape)}, got ${show(dy.shape)}`)
  }
  if (dy.dtype !== dtype) {
    throw new SpikenormError('ERR_DTYPE', `dy: expected ${dtype}, as the output, got ${dy.dtype}`)
  }
  if (dy.device !== device) {
    throw new SpikenormError('ERR_DEVICE', `dy: expected a tensor on ${device}, got one on ${dy.device}`)
  }
}
