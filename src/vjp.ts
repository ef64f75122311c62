/** A forward whose backward is its own, whatever the module does in between. */
import { SpikenormError } from './errors.js'
import { Saved } from './handle.js'
import { changed } from './rollback.js'
import type { Tape, TapeEntry } from './tape.js'
import type { Tensor } from './tensor.js'

/** What `module.vjp` gives. */
export interface Vjp {
  /** Output of the forward. */
  y: Tensor
  /** Gradient of the input, given that of `y`; once at most. Parameter gradients accumulate in `.grad`. */
  backward(dy: Tensor): Tensor
}

/** A module, as this file needs it. */
export interface Differentiable {
  readonly name: string
  /** Of the module and all below it. */
  readonly tapes: readonly Tape<TapeEntry>[]
  /** A recorded one. */
  forward(): Tensor
  backward(dy: Tensor): Tensor
  isDisposed(): boolean
}

/** Runs a forward and takes what it has recorded off the tapes, for the backward that is returned. */
export function vjpOf(module: Differentiable): Vjp {
  const { tapes } = module
  const exchange = (entries: readonly (readonly TapeEntry[])[]) =>
    tapes.map((tape, i) => tape.exchange(entries[i] ?? []))
  let recorded: TapeEntry[][] | null = null
  const backward = (dy: Tensor) => {
    if (recorded === null) {
      throw new SpikenormError(
        'ERR_NO_FORWARD',
        `${module.name}: vjp: the backward of this forward has been called before`,
      )
    }
    const entries = recorded
    // Nobody else knows of them.
    if (module.isDisposed()) for (const { saved } of entries.flat()) saved?.dispose()
    const pending = exchange(entries)
    try {
      const dx = module.backward(dy)
      recorded = null
      changed({
        undo: () => {
          recorded = entries
        },
      })
      return dx
    } finally {
      exchange(pending)
    }
  }
  const pending = exchange([])
  try {
    return { y: module.forward(), backward }
  } finally {
    recorded = exchange(pending)
    // Nothing but the closure knows of them any more, and that may be dropped.
    for (const { saved } of recorded.flat()) if (saved instanceof Saved) saved.watch()
  }
}
