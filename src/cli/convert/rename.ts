/** Keys of a state dict: choosing and renaming them. */
import type { Tensor } from '../../index.js'
import { Failure, UsageError } from '../errors.js'

export type Dict = Record<string, Tensor>

export interface Renaming {
  pattern: RegExp
  replacement: string
}

/** Reads `pattern=replacement`: a regular expression, and what stands for it, with $1 for its first group. */
export function parseRenaming(text: string): Renaming {
  const at = text.indexOf('=')
  if (at < 1) throw new UsageError(`--rename takes 'pattern=replacement', not '${text}'.`)
  const source = text.slice(0, at)
  try {
    return { pattern: new RegExp(source, 'g'), replacement: text.slice(at + 1) }
  } catch (thrown) {
    throw new UsageError(`--rename: '${source}' is no regular expression: ${(thrown as Error).message}.`)
  }
}

/** The entries below a prefix, named without it. */
export function select(dict: Dict, prefix: string): Dict {
  const chosen = Object.entries(dict).filter(([key]) => key.startsWith(prefix))
  if (chosen.length === 0) {
    throw new Failure(`--select ${prefix}: no key begins with it; the keys are ${someOf(Object.keys(dict))}`)
  }
  return Object.fromEntries(chosen.map(([key, value]) => [key.slice(prefix.length), value]))
}

/** Renames keys; throws where two would have one name, says through `note` what had nothing to rename. */
export function rename(
  dict: Dict,
  { strip, renamings }: { strip: readonly string[]; renamings: readonly Renaming[] },
  note: (sentence: string) => void,
): Dict {
  let names = Object.keys(dict).map((key) => ({ from: key, to: key }))
  const apply = (what: string, change: (key: string) => string) => {
    const next = names.map(({ from, to }) => ({ from, to: change(to) }))
    if (next.every(({ to }, i) => to === names[i]?.to)) note(`${what} changed no key`)
    names = next
  }
  for (const prefix of strip) {
    apply(`--strip-prefix ${prefix}`, (key) => (key.startsWith(prefix) ? key.slice(prefix.length) : key))
  }
  for (const { pattern, replacement } of renamings) {
    apply(`--rename '${pattern.source}=${replacement}'`, (key) => key.replace(pattern, replacement))
  }
  const taken = new Map<string, string>()
  for (const { from, to } of names) {
    const other = taken.get(to)
    if (to === '') throw new Failure(`'${from}' would be left without a name`)
    if (other !== undefined) throw new Failure(`'${other}' and '${from}' would both be named '${to}'`)
    taken.set(to, from)
  }
  return Object.fromEntries(names.map(({ from, to }) => [to, dict[from] as Tensor]))
}

export function someOf(names: readonly string[], most = 8): string {
  const shown = names.slice(0, most).join(', ')
  return names.length > most ? `${shown} and ${names.length - most} more` : shown || 'none'
}
