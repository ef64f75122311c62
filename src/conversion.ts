/** Converting tensors to another dtype or device in place: all of them, or on an error none. */
import type { Device } from './device.js'
import type { DType } from './dtype.js'
import { native } from './native.js'
import { changed, isAtomic } from './rollback.js'
import { Tensor } from './tensor.js'

/** What tensors are to become; int64 ones keep their dtype. */
export interface Conversion {
  dtype?: DType
  device?: Device
}

/** A copy of `tensor` as it is to become; itself where nothing changes. */
export function converted(tensor: Tensor, { dtype, device }: Conversion): Tensor {
  const moved = device === undefined ? tensor : tensor.to(device)
  if (dtype === undefined || tensor.dtype === 'int64' || tensor.dtype === dtype) return moved
  try {
    return moved.to(dtype)
  } finally {
    if (moved !== tensor) moved.dispose()
  }
}

/** Makes each of `tensors` what stands at its place in `others`, sharing memory and keeping its identity. */
function replace(tensors: readonly Tensor[], others: readonly Tensor[]): void {
  native.tensorsReplace(
    tensors.map(({ id }) => id),
    others.map(({ id }) => id),
  )
  for (const tensor of tensors) tensor.hasBeenReplaced()
}

/** Copies that are to take the places of tensors. Nothing changes before {@link apply}. */
export class Conversions {
  readonly #target: Conversion
  readonly #copies = new Map<Tensor, Tensor>()

  constructor(target: Conversion) {
    this.#target = target
  }

  /** Copies `tensor` once, if it changes at all. */
  add(tensor: Tensor): void {
    if (this.#copies.has(tensor)) return
    const copy = converted(tensor, this.#target)
    if (copy !== tensor) this.#copies.set(tensor, copy)
  }

  /** Copies `base`, and makes `rows`, which are its rows, those of the copy. */
  addWithRows(base: Tensor, rows: readonly Tensor[]): void {
    this.add(base)
    const copy = this.#copies.get(base)
    if (!copy) return
    for (const [t, row] of rows.entries()) this.#copies.set(row, new Tensor(native.tensorRow(copy.id, t)))
  }

  /** Makes every tensor its copy, keeping its identity. */
  apply(): void {
    const tensors = [...this.#copies.keys()]
    // The memory there is now, where a call that is going on may yet have to put it back.
    const before = isAtomic() ? tensors.map((tensor) => tensor.reshape(tensor.shape)) : []
    replace(tensors, [...this.#copies.values()])
    changed({
      undo: () => {
        replace(tensors, before)
        for (const old of before) old.dispose()
      },
      release: () => {
        for (const old of before) old.dispose()
      },
    })
  }

  /** Frees the copies; what has been applied is left. */
  dispose(): void {
    for (const copy of this.#copies.values()) copy.dispose()
  }
}
