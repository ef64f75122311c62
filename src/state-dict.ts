import { boolean, type Signature } from './arguments.js'
import { SpikenormError } from './errors.js'
import { printable } from './format-value.js'
import { native } from './native.js'
import { keepValues } from './rollback.js'
import { Tensor } from './tensor.js'

/** How a module's `loadStateDict` is called. */
export const LOAD_STATE_DICT: Signature<{ strict?: boolean }> = {
  call: 'net.loadStateDict',
  leading: ['dict'],
  options: { strict: boolean },
  positional: ['strict'],
}

/** Keys that did not match, as PyTorch's `load_state_dict` returns them. */
export interface LoadResult {
  /** Names of the module that the dict has not. */
  missingKeys: string[]
  /** Names of the dict that the module has not. */
  unexpectedKeys: string[]
}

/** The entries whose value has not been before. */
export function eachOnce<T>(entries: readonly [string, T][]): [string, T][] {
  const seen = new Set<T>()
  return entries.filter(([, value]) => !seen.has(value) && seen.add(value))
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

/** PyTorch's name for the counter of a norm's updates. */
const COUNTER = /(^|\.)num_batches_tracked$/

/**
 * Copies `dict` into the named tensors of a module: everything is checked before anything is written.
 *
 * What PyTorch takes from older files is taken: norms without their counter, which keeps its value, and scalars of shape
 * [1]. A tensor with several names, such as a shared weight, needs one of them (safetensors' `load_model`).
 */
export function loadIntoModule(
  targets: readonly [string, Tensor][],
  dict: Record<string, Tensor>,
  strict: boolean,
): LoadResult {
  const names = new Set(targets.map(([name]) => name))
  const given = new Set(targets.filter(([name]) => Object.hasOwn(dict, name)).map(([, target]) => target))
  const missingKeys = targets
    .filter(([name, target]) => !given.has(target) && !isCounter(name, target))
    .map(([name]) => name)
  const unexpectedKeys = Object.keys(dict).filter((name) => !names.has(name))
  const problems: string[] = []
  if (strict && missingKeys.length > 0) problems.push(`missing keys: ${missingKeys.join(', ')}`)
  if (strict && unexpectedKeys.length > 0)
    problems.push(`unexpected keys: ${unexpectedKeys.map(printable).join(', ')}`)
  const matched: [Tensor, Tensor][] = []
  for (const [name, target] of targets) {
    if (!Object.hasOwn(dict, name)) continue
    const source = dict[name]
    if (!(source instanceof Tensor)) {
      problems.push(`${name}: expected a Tensor`)
    } else if (source.isDisposed) {
      // A tensor may know its shape from before, so the check of shapes would not see it.
      throw new SpikenormError('ERR_DISPOSED', `loadStateDict: ${name}: the tensor has been disposed of`)
    } else if (source.shape.join() === target.shape.join()) {
      matched.push([target, source])
    } else if (target.shape.length === 0 && source.shape.join() === '1') {
      matched.push([target, source.reshape([])])
    } else {
      problems.push(`${name}: expected shape [${target.shape.join(', ')}], got [${source.shape.join(', ')}]`)
    }
  }
  if (problems.length > 0) {
    throw new SpikenormError('ERR_STATE_DICT', `loadStateDict: ${problems.join('; ')}`)
  }
  const [targetIds, sourceIds] = [
    matched.map(([target]) => target.id),
    matched.map(([, source]) => source.id),
  ]
  for (const [target] of matched) keepValues(target)
  native.tensorsCopy(targetIds, sourceIds)
  return { missingKeys, unexpectedKeys }
}

function isCounter(name: string, target: Tensor): boolean {
  return COUNTER.test(name) && target.dtype === 'int64' && target.shape.length === 0
}
