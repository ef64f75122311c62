/** Checkpoints on disk: .safetensors files, and those of torch.save. */
import { closeSync, openSync, readSync } from 'node:fs'
import { extname } from 'node:path'
import { loadPyTorch, loadSafetensors, SpikenormError } from '../../index.js'
import { Failure, UsageError } from '../errors.js'
import type { Dict } from './rename.js'

export interface LoadOptions {
  /** Where in a file of torch.save the state dict is, outermost key first. */
  keys: readonly string[]
  /** Leaves out what has no counterpart here, in a file of torch.save. */
  skipUnsupported: boolean
}

const PYTORCH_NAMES = ['.pt', '.pth', '.ckpt', '.bin']

/** Reads a state dict from either kind of file, told apart by how it begins and, where that says nothing, by its name. */
export function load(path: string, { keys, skipUnsupported }: LoadOptions): Dict {
  const isPyTorch = beginsAsArchive(path) || PYTORCH_NAMES.includes(extname(path).toLowerCase())
  if (!isPyTorch) {
    const option = keys.length > 0 ? '--key' : skipUnsupported ? '--skip-unsupported' : null
    if (option) throw new UsageError(`${option} is for files of torch.save, which ${path} is not.`)
    return loadSafetensors(path)
  }
  try {
    return loadPyTorch(path, { skipUnsupported, ...(keys.length > 0 ? { key: keys } : {}) })
  } catch (thrown) {
    if (!(thrown instanceof SpikenormError)) throw thrown
    throw new Failure(forCommandLine(thrown.message), { cause: thrown })
  }
}

/** torch.save writes zip archives. */
function beginsAsArchive(path: string): boolean {
  const start = Buffer.alloc(4)
  let file: number
  try {
    file = openSync(path, 'r')
  } catch {
    // Whoever loads it says what is wrong.
    return false
  }
  try {
    readSync(file, start, 0, 4, 0)
  } catch {
    return false
  } finally {
    closeSync(file)
  }
  return start.toString('latin1') === 'PK\x03\x04'
}

/** The options that a message tells of, as they are given here: `{ key: ['a', 'b'] }` is `--key a --key b`. */
function forCommandLine(message: string): string {
  return message
    .replace(/\{ key: (\[?'.*?'\]?) \}/g, (_, keys: string) =>
      [...keys.matchAll(/'([^']*)'/g)].map(([, key]) => `--key ${key}`).join(' '),
    )
    .replaceAll('skipUnsupported: true', '--skip-unsupported')
}
