import { SpikenormError } from './errors.js'
import { native } from './native.js'
import { Tensor } from './tensor.js'

/** Keys that did not match, as PyTorch's `load_state_dict` returns them. */
export interface LoadResult {
  /** Names of the module that the dict has not. */
  missingKeys: string[]
  /** Names of the dict that the module has not. */
  unexpectedKeys: string[]
}

/** A copy of each tensor, by name: of all, or on an error of none. */
export function copiesOf(entries: readonly (readonly [string, Tensor])[]): Record<string, Tensor> {
  const copies: [string, Tensor][] = []
  try {
    for (const [name, value] of entries) copies.push([name, value.clone()])
  } catch (thrown) {
    for (const [, copy] of copies) copy.dispose()
    throw thrown
  }
  return Object.fromEntries(copies)
}

/** Copies `dict` into the named tensors of a module: everything is checked before anything is written. */
export function loadIntoModule(
  targets: readonly [string, Tensor][],
  dict: Record<string, Tensor>,
  strict: boolean,
): LoadResult {
  const names = new Set(targets.map(([name]) => name))
  const missingKeys = targets.map(([name]) => name).filter((name) => !Object.hasOwn(dict, name))
  const unexpectedKeys = Object.keys(dict).filter((name) => !names.has(name))
  const problems: string[] = []
  if (strict && missingKeys.length > 0) problems.push(`missing keys: ${missingKeys.join(', ')}`)
  if (strict && unexpectedKeys.length > 0) problems.push(`unexpected keys: ${unexpectedKeys.join(', ')}`)
  const matched: [Tensor, Tensor][] = []
  for (const [name, target] of targets) {
    const source = dict[name]
    if (source === undefined) continue
    if (!(source instanceof Tensor)) {
      problems.push(`${name}: expected a Tensor`)
    } else if (source.isDisposed) {
      // A tensor may know its shape from before, so the check of shapes would not see it.
      throw new SpikenormError('ERR_DISPOSED', `loadStateDict: ${name}: the tensor has been disposed of`)
    } else if (source.shape.join() !== target.shape.join()) {
      problems.push(`${name}: expected shape [${target.shape.join(', ')}], got [${source.shape.join(', ')}]`)
    } else {
      matched.push([target, source])
    }
  }
  if (problems.length > 0) {
    throw new SpikenormError('ERR_STATE_DICT', `loadStateDict: ${problems.join('; ')}`)
  }
  native.tensorsCopy(
    matched.map(([target]) => target.id),
    matched.map(([, source]) => source.id),
  )
  return { missingKeys, unexpectedKeys }
}

/**
 * Writes tensors to a .safetensors file that PyTorch reads (`safetensors.torch.load_file`), all or nothing. Throws
 * `ERR_FILE`.
 */
export function saveSafetensors(path: string, dict: Record<string, Tensor>): void {
  const entries = Object.entries(dict)
  native.saveSafetensors(
    path,
    entries.map(([name]) => name),
    entries.map(([, tensor]) => tensor.id),
  )
}

/** Reads every tensor of a .safetensors file. Throws `ERR_FILE`, and `ERR_DTYPE` for a dtype unknown here. */
export function loadSafetensors(path: string): Record<string, Tensor> {
  return Object.fromEntries(
    native.loadSafetensors(path).map(({ name, handle }) => [name, new Tensor(handle)]),
  )
}
