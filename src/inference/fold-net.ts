/** Folding every norm of a net that stands behind a convolution or linear layer. */
import { boolean, callback, readOptions, type Signature } from '../arguments.js'
import { SpikenormError } from '../errors.js'
import { formatValue } from '../format-value.js'
import { NormLayer } from '../layers/norm-layer.js'
import { expectModule, Module } from '../module.js'
import { Residual, Sequential } from '../nn/containers.js'
import { Conv2d } from '../nn/conv.js'
import { Identity } from '../nn/identity.js'
import { Linear } from '../nn/linear.js'
import { PerStep } from '../nn/per-step.js'
import { copyOf, isCopyable } from './copy.js'
import { fold } from './fold.js'

/** Options of {@link foldNet}. */
export interface FoldNetOptions {
  /** Whether a norm behind a Conv2d or Linear that cannot be folded is an error; otherwise it is copied. Default true. */
  strict?: boolean
  /**
   * Copies a module of a class that is not the library's own; what it returns takes the module's place. May return the
   * module itself where sharing it is meant.
   */
  copy?: (module: Module) => Module
}

const SIGNATURE: Signature<FoldNetOptions> = {
  call: 'foldNet',
  leading: ['net'],
  options: { strict: boolean, copy: callback },
}

/**
 * A copy of a net for inference, in which each norm that directly follows a Conv2d or Linear of an `nn.Sequential` is
 * folded into it (see {@link fold}), in `nn.Residual` and `nn.PerStep` too. An `nn.Identity` stands in the norm's place, so
 * the keys of everything else stay what they were. The copy is in eval mode, starts from the initial state and shares
 * nothing with `net`, which is left as it is; a module that occurs twice occurs twice in the copy.
 *
 * Throws `ERR_ARGUMENT` for a norm that cannot be folded (unless `strict: false`) and for a module of a class of one's own
 * without `copy`, naming its place in the net.
 */
export function foldNet<Net extends Module>(net: Net, options?: FoldNetOptions): Net {
  const checked = readOptions('foldNet', options, arguments, SIGNATURE)
  expectModule('foldNet', 'net', net)
  return new Folding(net, checked).copy(net, '').eval() as Net
}

class Folding {
  readonly #options: FoldNetOptions
  /** Copies by original, so that shared modules stay shared. */
  readonly #copies = new Map<Module, Module>()
  /** How often a module occurs in the net. */
  readonly #occurrences = new Map<Module, number>()

  constructor(net: Module, options: FoldNetOptions) {
    this.#options = options
    this.#count(net)
  }

  #count(module: Module): void {
    this.#occurrences.set(module, (this.#occurrences.get(module) ?? 0) + 1)
    for (const below of placesOf(module)) this.#count(below)
  }

  copy(module: Module, path: string): Module {
    const known = this.#copies.get(module)
    if (known) return known
    const copy = this.#copy(module, path)
    this.#copies.set(module, copy)
    return copy
  }

  #copy(module: Module, path: string): Module {
    switch (module.constructor) {
      case Sequential:
        return inModeOf(module, new Sequential(...this.#chain(placesOf(module), path)))
      case Residual:
        return inModeOf(module, new Residual(this.copy((module as Residual).module, join(path, 'module'))))
      case PerStep: {
        const steps = placesOf(module).map((step, t) => this.copy(step, join(path, t)))
        return inModeOf(module, new PerStep(steps, { cyclic: (module as PerStep).cyclic }))
      }
      default:
        return at(path, () => (isCopyable(module) ? copyOf(module) : this.#copyByUser(module)))
    }
  }

  #copyByUser(module: Module): Module {
    const name = module.constructor.name
    const { copy } = this.#options
    if (!copy) {
      throw new SpikenormError(
        'ERR_ARGUMENT',
        `foldNet: ${name} is not a class of this library; say how to copy it with the option copy`,
      )
    }
    const copied: unknown = copy(module)
    if (!(copied instanceof Module)) {
      throw new SpikenormError(
        'ERR_ARGUMENT',
        `foldNet: copy: expected a Module for ${name}, got ${formatValue(copied)}`,
      )
    }
    return copied
  }

  /** Copies of modules that follow each other, norms folded into what stands before them. */
  #chain(modules: readonly Module[], path: string): Module[] {
    const links: Link[] = []
    /** What the next norm may be folded into. */
    let last: Link | undefined
    for (const [index, module] of modules.entries()) {
      const folded = last && isWeighted(last.module) && this.#fold(last.module, module, join(path, index))
      if (last && folded) {
        last.module = folded
        last.isNew = true
        links.push({ module: new Identity(), isNew: true, place: '' })
      } else {
        last = { module, isNew: false, place: join(path, index) }
        links.push(last)
      }
    }
    return links.map(({ module, isNew, place }) => (isNew ? module : this.copy(module, place)))
  }

  /** `norm` folded into the layer before it, or null where it is to be copied. */
  #fold(layer: Conv2d | Linear, norm: Module, path: string): Module | null {
    if (!(norm instanceof NormLayer && isCopyable(norm))) return null
    try {
      return at(path, () => {
        if ((this.#occurrences.get(norm) ?? 0) > 1 && 'T' in norm) {
          throw new SpikenormError(
            'ERR_ARGUMENT',
            `foldNet: ${norm.constructor.name} occurs more than once: its places share one step index`,
          )
        }
        return fold(layer, norm)
      })
    } catch (thrown) {
      if (thrown instanceof SpikenormError && !(this.#options.strict ?? true)) return null
      throw thrown
    }
  }
}

/** What is directly below a module, as often as it occurs there. */
function placesOf(module: Module): Module[] {
  return module instanceof Sequential || module instanceof PerStep ? [...module] : module.children()
}

/** A module of a chain: one of the original's, or what folding has made. */
interface Link {
  module: Module
  isNew: boolean
  place: string
}

function isWeighted(module: Module): module is Conv2d | Linear {
  return module.constructor === Conv2d || module.constructor === Linear
}

const join = (path: string, key: string | number) => (path === '' ? String(key) : `${path}.${key}`)

/** Runs `body`, naming the place in the net in its errors. */
function at<R>(path: string, body: () => R): R {
  try {
    return body()
  } catch (thrown) {
    throw thrown instanceof SpikenormError && path !== '' ? thrown.within(path) : thrown
  }
}

/** Gives a container its original's own step mode, without handing it down. */
function inModeOf(original: Module, copy: Module): Module {
  Reflect.set(Module.prototype, 'stepMode', original.stepMode, copy)
  return copy
}
