/** Checkpoints on disk: .safetensors files, and those of torch.save. */
import { readSync } from 'node:fs'
import { extname } from 'node:path'
import { loadPyTorch, loadSafetensors, loadSafetensorsMetadata, SpikenormError } from '../../index.js'
import { readingRegularFile } from '../../regular-file.js'
import { Failure, UsageError } from '../errors.js'
import type { Dict } from './rename.js'

export interface LoadOptions {
  /** Where in a file of torch.save the state dict is, outermost key first. */
  keys: readonly string[]
  /** Leaves out what has no counterpart here. */
  skipUnsupported: boolean
}

const PYTORCH_NAMES = ['.pt', '.pth', '.ckpt', '.bin']

export interface Loaded {
  dict: Dict
  /** What a .safetensors file says of itself. */
  metadata: Record<string, string>
}

/** Reads a state dict from either kind of file, told apart by how it begins and, where that says nothing, by its name. */
export function load(path: string, { keys, skipUnsupported }: LoadOptions): Loaded {
  const isPyTorch = beginsAsArchive(path) || PYTORCH_NAMES.includes(extname(path).toLowerCase())
  if (!isPyTorch) {
    if (keys.length > 0) throw new UsageError(`--key is for files of torch.save, which ${path} is not.`)
  }
  try {
    if (!isPyTorch) {
      return { dict: loadSafetensors(path, { skipUnsupported }), metadata: loadSafetensorsMetadata(path) }
    }
    const options = { skipUnsupported, ...(keys.length > 0 ? { key: keys } : {}) }
    return { dict: loadPyTorch(path, options), metadata: {} }
  } catch (thrown) {
    if (!(thrown instanceof SpikenormError)) throw thrown
    throw new Failure(forCommandLine(thrown.message), { cause: thrown })
  }
}

/** torch.save writes zip archives. */
function beginsAsArchive(path: string): boolean {
  return readingRegularFile(path, (fd) => {
    const start = Buffer.alloc(4)
    readSync(fd, start, 0, 4, 0)
    return start.toString('latin1') === 'PK\x03\x04'
  })
}

/** The options that a message tells of, as they are given here: `{ key: ['a', 'b'] }` is `--key a --key b`. */
function forCommandLine(message: string): string {
  return message
    .replace(/\{ key: (\[?'.*?'\]?) \}/g, (_, keys: string) =>
      [...keys.matchAll(/'([^']*)'/g)].map(([, key]) => `--key ${key}`).join(' '),
    )
    .replaceAll('skipUnsupported: true', '--skip-unsupported')
}
